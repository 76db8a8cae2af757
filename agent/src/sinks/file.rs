//! A file that grows.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;

use super::lines::Lines;
use super::{Sink, Spec};
use crate::render::Context;

pub(super) fn build(spec: &Spec, context: &Context) -> io::Result<Box<dyn Sink>> {
    let path = spec.path.as_deref().ok_or(io::ErrorKind::InvalidInput)?;
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let context = Context { colour: false, ..context.clone() };
    Ok(Box::new(Lines::new(file, spec.format, context)))
}
