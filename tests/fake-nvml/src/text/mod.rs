//! The state as text, and back: JSON, and how each kind of value stands in it.
//!
//! It promises that what was written is read back as it was, that a key left out has its default, and that an unknown
//! one is an error with its place. Nothing of serde is used: this crate becomes a file of one name, which cargo builds
//! anew wherever a dependency has other features, and every test that depends on it with it. What it depends on has
//! none.

mod json;
mod values;

pub(crate) use json::Json;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

/// What stands in the state as text.
pub(crate) trait Told: Sized {
    /// How it stands there.
    fn tell(&self) -> Json;

    /// Reads it; an error says where and why.
    fn read(json: &Json) -> Result<Self, String>;
}

/// Says where in a larger value an error is.
fn at<T>(place: impl Display, result: Result<T, String>) -> Result<T, String> {
    result.map_err(|error| match error.strip_prefix('.') {
        Some(deeper) => format!(".{place}.{deeper}"),
        None => format!(".{place}: {error}"),
    })
}

/// Numbers, which stand there as they print.
macro_rules! numbers {
    ($($type:ty),*) => {$(
        impl Told for $type {
            fn tell(&self) -> Json {
                Json::Number(self.to_string())
            }

            fn read(json: &Json) -> Result<Self, String> {
                let Json::Number(text) = json else { return Err(json.is_no("number")) };
                <$type>::from_str(text).map_err(|error| format!("{text} is no {}: {error}", stringify!($type)))
            }
        }
    )*};
}
numbers!(u32, u64, i32, i64, f64, u8);

impl Told for bool {
    fn tell(&self) -> Json {
        Json::Bool(*self)
    }

    fn read(json: &Json) -> Result<Self, String> {
        match json {
            Json::Bool(value) => Ok(*value),
            other => Err(other.is_no("true or false")),
        }
    }
}

impl Told for String {
    fn tell(&self) -> Json {
        Json::Text(self.clone())
    }

    fn read(json: &Json) -> Result<Self, String> {
        match json {
            Json::Text(text) => Ok(text.clone()),
            other => Err(other.is_no("text")),
        }
    }
}

impl<T: Told> Told for Option<T> {
    fn tell(&self) -> Json {
        self.as_ref().map_or(Json::Null, Told::tell)
    }

    fn read(json: &Json) -> Result<Self, String> {
        match json {
            Json::Null => Ok(None),
            other => T::read(other).map(Some),
        }
    }
}

impl<T: Told> Told for Vec<T> {
    fn tell(&self) -> Json {
        Json::List(self.iter().map(Told::tell).collect())
    }

    fn read(json: &Json) -> Result<Self, String> {
        let Json::List(items) = json else { return Err(json.is_no("list")) };
        items.iter().enumerate().map(|(place, item)| at(place, T::read(item))).collect()
    }
}

impl<A: Told, B: Told> Told for (A, B) {
    fn tell(&self) -> Json {
        Json::List(vec![self.0.tell(), self.1.tell()])
    }

    fn read(json: &Json) -> Result<Self, String> {
        match json {
            Json::List(items) if items.len() == 2 => {
                Ok((at(0, A::read(&items[0]))?, at(1, B::read(&items[1]))?))
            }
            other => Err(other.is_no("list of two")),
        }
    }
}

impl<T: Told> Told for BTreeMap<u32, T> {
    fn tell(&self) -> Json {
        Json::Object(self.iter().map(|(key, value)| (key.to_string(), value.tell())).collect())
    }

    fn read(json: &Json) -> Result<Self, String> {
        let Json::Object(entries) = json else { return Err(json.is_no("object")) };
        let read = |(key, value): &(String, Json)| {
            let number = u32::from_str(key).map_err(|error| format!("key {key:?}: {error}"))?;
            Ok((number, at(key, T::read(value))?))
        };
        entries.iter().map(read).collect()
    }
}

/// Structures: the fields that must be there, then those that have a default.
macro_rules! structures {
    ($($type:ident { $($needed:ident),* } $($field:ident),*;)*) => {$(
        impl Told for $type {
            fn tell(&self) -> Json {
                Json::Object(vec![
                    $((stringify!($needed).to_owned(), self.$needed.tell()),)*
                    $((stringify!($field).to_owned(), self.$field.tell()),)*
                ])
            }

            fn read(json: &Json) -> Result<Self, String> {
                let Json::Object(entries) = json else { return Err(json.is_no("object")) };
                let needed: &[&str] = &[$(stringify!($needed)),*];
                for needed in needed {
                    if !entries.iter().any(|(key, _)| key == needed) {
                        return Err(format!("{needed} is missing"));
                    }
                }
                let mut read = $type::default();
                for (key, value) in entries {
                    match key.as_str() {
                        $(stringify!($needed) => read.$needed = at(key, Told::read(value))?,)*
                        $(stringify!($field) => read.$field = at(key, Told::read(value))?,)*
                        _ => return Err(format!("there is no key {key:?}")),
                    }
                }
                Ok(read)
            }
        }
    )*};
}

/// Choices that carry nothing.
macro_rules! choices {
    ($($type:ident { $($name:literal = $choice:ident),* };)*) => {$(
        impl Told for $type {
            fn tell(&self) -> Json {
                Json::Text(match self { $($type::$choice => $name,)* }.to_owned())
            }

            fn read(json: &Json) -> Result<Self, String> {
                match json {
                    $(Json::Text(text) if text == $name => Ok($type::$choice),)*
                    other => Err(other.is_no(concat!("one of" $(, " ", $name)*))),
                }
            }
        }
    )*};
}
use {choices, structures};
