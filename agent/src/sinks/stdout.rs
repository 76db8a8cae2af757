//! Standard output.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use super::lines::Lines;
use super::{Sink, Spec};
use crate::render::Context;

pub(super) fn build(spec: &Spec, context: &Context) -> io::Result<Box<dyn Sink>> {
    // A descriptor of our own: no lock and no buffer that others share.
    let out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    Ok(Box::new(Lines::new(out, spec.format, context.clone())))
}
