//! The `key=value` arguments of actors. A key may come more than once.

use std::ffi::CString;

use anyhow::{Context, Result};

/// Arguments by key, in order.
#[derive(Clone, Debug, Default)]
pub struct Args(Vec<(String, String)>);

impl Args {
    /// Splits each at its first `=`; one without (a `#!` line adds the script) has the empty key.
    #[must_use]
    pub fn parse(args: impl Iterator<Item = String>) -> Self {
        let pair = |a: String| a.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
        Self(args.map(|a| pair(a.clone()).unwrap_or_else(|| (String::new(), a))).collect())
    }

    /// The first value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|a| a.0 == key).map(|a| a.1.as_str())
    }

    /// All values of `key`.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |a| a.0 == key).map(|a| a.1.as_str())
    }

    /// The first value of `key`, which must be there.
    ///
    /// # Errors
    /// When it is not.
    pub fn need(&self, key: &str) -> Result<&str> {
        self.get(key).with_context(|| format!("{key}= is missing"))
    }

    /// The same as a string for the kernel.
    ///
    /// # Errors
    /// When it is not there or holds a NUL.
    pub fn path(&self, key: &str) -> Result<CString> {
        Ok(CString::new(self.need(key)?)?)
    }

    /// A number, or `default`.
    ///
    /// # Errors
    /// When it is no number.
    pub fn number(&self, key: &str, default: i64) -> Result<i64> {
        self.get(key).map_or(Ok(default), |v| v.parse().with_context(|| format!("{key}={v}")))
    }

    /// Whether `key=1`.
    #[must_use]
    pub fn flag(&self, key: &str) -> bool {
        self.get(key) == Some("1")
    }
}
