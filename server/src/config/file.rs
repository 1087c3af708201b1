//! The configuration file: TOML with the place of every key and value, so that an error can point at it.

use std::{borrow::Cow, ops::Range, path::Path};

use gpulease_core::policy::ServicePolicy;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Config, ConfigError, error::Origin, keys, services, set, value::Raw};

/// Sets everything that the file says.
pub(super) fn apply(config: &mut Config, path: &Path, text: &str) -> Result<(), ConfigError> {
    let file = File { path, text };
    let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        origin: file.origin(error.span().unwrap_or_default()),
        what: error.message().replace('\n', ", "),
    })?;
    file.apply_table(config, "", table.get_ref())
}

struct File<'a> {
    path: &'a Path,
    text: &'a str,
}

impl File<'_> {
    fn apply_table(
        &self,
        config: &mut Config,
        prefix: &str,
        table: &DeTable<'_>,
    ) -> Result<(), ConfigError> {
        for (name, value) in in_place(table) {
            let path = format!("{prefix}{}", name.get_ref());
            let is_table = keys::ALL.iter().any(|key| key.split().0 == path);
            match value.get_ref() {
                DeValue::Table(inner) if path == services::TABLE => {
                    self.apply_services(config, inner)?;
                }
                DeValue::Table(inner) if is_table => {
                    self.apply_table(config, &format!("{path}."), inner)?;
                }
                _ => self.apply_value(config, &path, name.span(), value)?,
            }
        }
        Ok(())
    }

    /// Tables whose names are those of services.
    fn apply_services(&self, config: &mut Config, tables: &DeTable<'_>) -> Result<(), ConfigError> {
        for (name, value) in in_place(tables) {
            let service = services::service(name.get_ref());
            let (Some(service), DeValue::Table(table)) = (service, value.get_ref()) else {
                return Err(self.no_service(name.span(), name.get_ref()));
            };
            if tables.len() > services::TABLES_MAX {
                return Err(self.no_service(name.span(), name.get_ref()));
            }
            let settings = self.service(name.get_ref(), table)?;
            services::settle(&mut config.policy, service, settings);
        }
        Ok(())
    }

    fn no_service(&self, place: Range<usize>, name: &str) -> ConfigError {
        ConfigError::BadValue {
            origin: self.origin(place),
            key: services::TABLE.to_owned(),
            value: Raw::Text(name.to_owned()).to_string(),
            bound: services::NAME_FORM.to_owned(),
        }
    }

    fn service(&self, service: &str, table: &DeTable<'_>) -> Result<ServicePolicy, ConfigError> {
        let mut settings = ServicePolicy::default();
        for (name, value) in in_place(table) {
            let path = format!("{}.{service}.{}", services::TABLE, name.get_ref());
            let Some(key) = services::find(name.get_ref()) else {
                return Err(ConfigError::UnknownKey {
                    origin: self.origin(name.span()),
                    key: path,
                    nearest_key: services::nearest(name.get_ref()),
                });
            };
            let raw = raw(value.get_ref());
            key.set(&mut settings, &raw).map_err(|bound| ConfigError::BadValue {
                origin: self.origin(value.span()),
                key: path,
                value: raw.to_string(),
                bound,
            })?;
        }
        Ok(settings)
    }

    fn apply_value(
        &self,
        config: &mut Config,
        path: &str,
        place: Range<usize>,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<(), ConfigError> {
        let Some(key) = keys::find(path) else {
            return Err(ConfigError::UnknownKey {
                origin: self.origin(place),
                key: path.to_owned(),
                nearest_key: keys::nearest(path),
            });
        };
        set(config, key, &raw(value.get_ref()), || self.origin(value.span()))
    }

    fn origin(&self, place: Range<usize>) -> Origin {
        let before = self.text.get(..place.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Origin::File { path: self.path.to_path_buf(), line, column }
    }
}

/// The entries of a table in order of place, so that the first error is the topmost.
fn in_place<'a, 'i>(
    table: &'a DeTable<'i>,
) -> Vec<(&'a Spanned<Cow<'i, str>>, &'a Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(number) => {
            let parsed = i64::from_str_radix(number.as_str(), number.radix());
            parsed.map_or(Raw::Other("a number out of range"), Raw::Integer)
        }
        DeValue::Boolean(value) => Raw::Boolean(*value),
        DeValue::Float(_) => Raw::Other("a number with a fraction"),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Array(_) => Raw::Other("a list"),
        DeValue::Table(_) => Raw::Other("a table"),
    }
}
