//! JSON: a value, its text, and reading it.
//!
//! It promises that numbers keep their digits, that a text is read whole or refused with the line of its first error,
//! and that a hostile depth is refused.

use std::fmt::{self, Display, Formatter, Write};

/// How deep lists and objects may be in each other: the state needs seven.
const DEPTH_MAX: usize = 32;

/// A value of JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Json {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A number as it is written.
    Number(String),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Json>),
    /// An object; keys as they come.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Reads a text.
    pub(crate) fn parse(text: &str) -> Result<Json, String> {
        let mut parser = Parser { text, at: 0 };
        let value = parser.value(0).and_then(|value| match parser.peek() {
            None => Ok(value),
            Some(_) => Err("nothing more is expected"),
        });
        value.map_err(|error| {
            let line = text[..parser.at].matches('\n').count() + 1;
            format!("line {line}: {error}")
        })
    }

    /// The key and value of an object that has one.
    pub(crate) fn only_entry(&self) -> Option<(&str, &Json)> {
        match self {
            Json::Object(entries) => match entries.as_slice() {
                [(key, value)] => Some((key, value)),
                _ => None,
            },
            _ => None,
        }
    }

    /// Says that it is not what was expected.
    pub(crate) fn is_no(&self, expected: &str) -> String {
        match self {
            Json::List(_) => format!("a list is no {expected}"),
            Json::Object(_) => format!("an object is no {expected}"),
            other => format!("{other} is no {expected}"),
        }
    }

    /// Writes it so that people can read it: lists and objects of more than plain values in lines of their own.
    fn write(&self, out: &mut Formatter<'_>, depth: usize) -> fmt::Result {
        match self {
            Json::Null => out.write_str("null"),
            Json::Bool(value) => write!(out, "{value}"),
            Json::Number(digits) => out.write_str(digits),
            Json::Text(text) => write_text(out, text),
            Json::List(items) => {
                let open = items.iter().any(|item| matches!(item, Json::List(_) | Json::Object(_)));
                write_items(out, ('[', ']'), open, depth, items, |item, out| {
                    item.write(out, depth + 1)
                })
            }
            Json::Object(entries) => {
                write_items(out, ('{', '}'), depth < 3, depth, entries, |(key, value), out| {
                    write_text(out, key)?;
                    out.write_str(": ")?;
                    value.write(out, depth + 1)
                })
            }
        }
    }
}

impl Display for Json {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        self.write(out, 0)
    }
}

fn write_items<T>(
    out: &mut Formatter<'_>,
    brackets: (char, char),
    open: bool,
    depth: usize,
    items: &[T],
    write: impl Fn(&T, &mut Formatter<'_>) -> fmt::Result,
) -> fmt::Result {
    let open = open && !items.is_empty();
    out.write_char(brackets.0)?;
    for (place, item) in items.iter().enumerate() {
        match (place, open) {
            (0, false) => {}
            (_, false) => out.write_str(", ")?,
            (0, true) => write!(out, "\n{:1$}", "", depth + 1)?,
            (_, true) => write!(out, ",\n{:1$}", "", depth + 1)?,
        }
        write(item, out)?;
    }
    if open {
        write!(out, "\n{:depth$}", "")?;
    }
    out.write_char(brackets.1)
}

fn write_text(out: &mut Formatter<'_>, text: &str) -> fmt::Result {
    out.write_char('"')?;
    for character in text.chars() {
        match character {
            '"' | '\\' => write!(out, "\\{character}")?,
            control if control < ' ' => write!(out, "\\u{:04x}", u32::from(control))?,
            other => out.write_char(other)?,
        }
    }
    out.write_char('"')
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    /// The next character that is no space.
    fn peek(&mut self) -> Option<u8> {
        let rest = self.text[self.at..].trim_start_matches([' ', '\t', '\r', '\n']);
        self.at = self.text.len() - rest.len();
        rest.bytes().next()
    }

    /// Whether this character comes next; goes past it.
    fn take(&mut self, wanted: u8) -> bool {
        let is_next = self.peek() == Some(wanted);
        self.at += usize::from(is_next);
        is_next
    }

    fn value(&mut self, depth: usize) -> Result<Json, &'static str> {
        if depth == DEPTH_MAX {
            return Err("lists and objects are too deep in each other");
        }
        match self.peek() {
            Some(b'{') => {
                self.items(b'{', b'}', |parser| parser.entry(depth + 1)).map(Json::Object)
            }
            Some(b'[') => self.items(b'[', b']', |parser| parser.value(depth + 1)).map(Json::List),
            Some(b'"') => self.string().map(Json::Text),
            Some(_) => self.word(),
            None => Err("the text ends too early"),
        }
    }

    fn entry(&mut self, depth: usize) -> Result<(String, Json), &'static str> {
        if self.peek() != Some(b'"') {
            return Err("a key in double quotes is expected");
        }
        let key = self.string()?;
        if !self.take(b':') {
            return Err("a colon is expected");
        }
        Ok((key, self.value(depth)?))
    }

    fn items<T>(
        &mut self,
        open: u8,
        close: u8,
        item: impl Fn(&mut Self) -> Result<T, &'static str>,
    ) -> Result<Vec<T>, &'static str> {
        let mut items = Vec::new();
        self.take(open);
        if self.take(close) {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if self.take(close) {
                return Ok(items);
            }
            if !self.take(b',') {
                return Err("a comma or the closing bracket is expected");
            }
        }
    }

    /// A number, or one of the three words.
    fn word(&mut self) -> Result<Json, &'static str> {
        let rest = &self.text[self.at..];
        let is_part = |it: char| it.is_ascii_alphanumeric() || matches!(it, '+' | '-' | '.');
        let word = rest.split(|it| !is_part(it)).next().unwrap_or_default();
        let value = match word {
            "null" => Json::Null,
            "true" => Json::Bool(true),
            "false" => Json::Bool(false),
            number if number.parse::<f64>().is_ok_and(f64::is_finite) => {
                Json::Number(number.to_owned())
            }
            _ => return Err("a value is expected"),
        };
        self.at += word.len();
        Ok(value)
    }

    fn string(&mut self) -> Result<String, &'static str> {
        let mut read = String::new();
        let mut characters = self.text[self.at..].char_indices().skip(1);
        while let Some((place, character)) = characters.next() {
            match character {
                '"' => {
                    self.at += place + 1;
                    return Ok(read);
                }
                '\\' => read.push(escaped(&mut characters).ok_or("an escape is not known")?),
                control if control < ' ' => return Err("a text has a control character in it"),
                other => read.push(other),
            }
        }
        Err("a text has no end")
    }
}

/// What stands behind a backslash.
fn escaped(characters: &mut impl Iterator<Item = (usize, char)>) -> Option<char> {
    let mut next = || characters.next().map(|(_, character)| character);
    let unit = |digits: &mut dyn FnMut() -> Option<char>| {
        (0..4).try_fold(0, |unit, _| Some(unit * 16 + digits()?.to_digit(16)?))
    };
    match next()? {
        'n' => Some('\n'),
        't' => Some('\t'),
        'r' => Some('\r'),
        'b' => Some('\u{8}'),
        'f' => Some('\u{c}'),
        plain @ ('"' | '\\' | '/') => Some(plain),
        'u' => match unit(&mut next)? {
            // Characters beyond 16 bits come as two.
            high @ 0xd800..0xdc00 if next()? == '\\' && next()? == 'u' => {
                let low = unit(&mut next)?.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
                char::from_u32(0x10000 + ((high - 0xd800) << 10) + low)
            }
            single => char::from_u32(single),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_with_all_their_escapes() {
        let read = Json::parse(r#" "a\n\t\r\b\f\"\\\/\u00e4\ud83d\ude00ü" "#);
        assert_eq!(read, Ok(Json::Text("a\n\t\r\u{8}\u{c}\"\\/ä😀ü".to_owned())));
    }

    #[test]
    fn what_is_no_json_is_refused_with_its_line() {
        for (text, said) in [
            ("", "line 1: the text ends too early"),
            ("{\n\"a\": 1,\n}", "line 3: a key in double quotes is expected"),
            ("[1\n2]", "line 2: a comma or the closing bracket is expected"),
            ("{\"a\" 1}", "line 1: a colon is expected"),
            ("[] []", "line 1: nothing more is expected"),
            ("nul", "line 1: a value is expected"),
            ("NaN", "line 1: a value is expected"),
            ("\"a", "line 1: a text has no end"),
            ("\"\\x\"", "line 1: an escape is not known"),
            ("\"\\ud800\"", "line 1: an escape is not known"),
        ] {
            assert_eq!(Json::parse(text), Err(said.to_owned()), "{text}");
        }
        let deep = "[".repeat(100_000);
        let said = "line 1: lists and objects are too deep in each other".to_owned();
        assert_eq!(Json::parse(&deep), Err(said));
    }
}
