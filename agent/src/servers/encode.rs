//! Records as they go out. Watchers of the same form get the same bytes: those of the newest records are kept for a while,
//! so that a thousand watchers cost one encoding.

use std::sync::{Mutex, PoisonError};

use prost::Message;
use prost::bytes::Bytes;

use super::wire::Step;
use super::wire::proto::Form;
use super::{Stream, convert};
use crate::render::{Context, Item, json, pretty};

/// Records of a stream and a form that are kept: more than watchers lie apart who keep up.
const KEPT: usize = 256;
const FORMS: usize = 4;

/// Number of the record, and what follows it in a step.
type Slots = Vec<(u64, Step)>;

/// What encodes.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    slots: [[Mutex<Slots>; FORMS]; 3],
}

impl Encoder {
    /// The record `number` of `stream`, in this form.
    pub(super) fn step(&self, stream: Stream, form: Form, number: u64, item: &Item, context: &Context) -> Step {
        let slots = &self.slots[stream as usize][form as usize];
        let mut slots = slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.is_empty() {
            slots.resize(KEPT, (0, Step::default()));
        }
        let slot = &mut slots[number as usize % KEPT];
        if slot.0 != number {
            *slot = (number, encode(stream, form, number, item, context));
        }
        slot.1.clone()
    }
}

fn encode(stream: Stream, form: Form, number: u64, item: &Item, context: &Context) -> Step {
    let step = Step { number, ..Step::default() };
    if form != Form::Unspecified {
        return Step { line: line(form, item, context).into(), ..step };
    }
    match item {
        Item::Finding(finding) => {
            Step { record: convert::finding(finding, context.host.boot).encode_to_vec().into(), ..step }
        }
        Item::Event(happening) => {
            let Some(view) = happening.view() else { return step };
            if let Some(gap) = convert::gap(&view, context.host.boot) {
                return Step { gap: gap.encode_to_vec().into(), ..step };
            }
            let record = match stream {
                Stream::Flows => convert::flow(happening, &view, context.host.boot).encode_to_vec(),
                _ => convert::event(happening, &view, context).encode_to_vec(),
            };
            Step { record: Bytes::from(record), ..step }
        }
    }
}

/// As a line, without its end.
pub(super) fn line(form: Form, item: &Item, context: &Context) -> Vec<u8> {
    let mut line = Vec::new();
    match form {
        Form::Colour => pretty::write(item, &Context { colour: true, ..context.clone() }, &mut line),
        Form::Pretty => pretty::write(item, context, &mut line),
        Form::Json | Form::Unspecified => json::write(item, context, &mut line),
    }
    line.pop_if(|last| *last == b'\n');
    line
}
