//! Decoding records that a real program made the kernel write, and copying them out of the ring. What is decoded is
//! compared with a second reading that shares nothing with the first but the description of the format.

use std::hint::black_box;

use anyhow::{Context as _, Result, ensure};
use haechi_agent::batch::Batch;
use haechi_agent::kernel::{Config, Drain, Kernel};
use haechi_ebpf::event::{by_id, security_file_open};
use haechi_ebpf::wire::{Value, View, at};
use haechi_signatures::demand::{Demand, Paths};

use super::Bench;
use super::loader::Loader;
use super::report::Measured;
use super::stats::{median, spread, thread_seconds};

/// Opens of each file in a round: together they fill half of the ring.
const OPENS: u64 = 8000;

pub(super) fn ring_decode(bench: &Bench) -> Result<Measured> {
    let deep = bench.place.deep_file()?;
    let files = ["/etc/hostname", "/etc/shadow", &deep];
    let leaves = files.iter().filter_map(|f| f.rsplit('/').next()).map(str::to_owned).collect();
    let demand = Demand::at(security_file_open::ID, Paths { leaves, ..Paths::default() });
    let config = Config { demands: vec![demand], bulk_ring_bytes: 16 << 20, ..Config::default() };
    let mut kernel = Kernel::open(&config)?;
    let mut drain = kernel.take_drain().context("nobody took the rings")?;
    let loads: Result<Vec<_>> = files.iter().map(|f| Loader::start(&["open", &format!("path={f}")])).collect();
    let mut loads = loads?;
    let (mut batch, mut drained, mut decoded, mut both) = (Batch::default(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..=bench.rounds {
        bench.gate.wait_for_processor();
        empty(&mut drain, &mut batch);
        for load in &mut loads {
            load.count(OPENS)?;
        }
        batch.clear();
        let began = thread_seconds();
        drain.drain(&mut batch);
        let copied = thread_seconds() - began;
        // Once as they came, warm from the copy, as the agent does.
        let sum = fold(&batch, fast)?;
        let whole = thread_seconds() - began;
        let slow_sum = fold(&batch, slow)?;
        ensure!(sum == slow_sum, "the decoder and the second reading differ");
        let count = batch.len() as f64;
        ensure!(batch.len() as u64 >= OPENS * files.len() as u64, "only {count} records came");
        // The first round warms the memory.
        if round > 0 {
            drained.push(count / copied / 1e6);
            both.push(count / whole / 1e6);
            decoded.push(rate(&batch)?);
        }
    }
    drop(kernel);
    let mut measured =
        Measured { value: median(&decoded), spread: spread(&decoded), rounds: decoded.len(), ..Measured::default() };
    measured.extra.insert("drain_m_per_s", median(&drained));
    measured.extra.insert("drain_and_decode_m_per_s", median(&both));
    measured.extra.insert("mean_record_bytes", batch.size() as f64 / batch.len() as f64);
    measured.notes.push(
        "opens of three files by real processes; a header has 112 bytes and an open 7 slots, so no \
                         record with a path is as short as 128 bytes"
            .into(),
    );
    Ok(measured)
}

fn empty(drain: &mut Drain, batch: &mut Batch) {
    loop {
        batch.clear();
        if drain.drain(batch) == 0 {
            return;
        }
    }
}

/// Millions of records a second, over a tenth of a second or more.
fn rate(batch: &Batch) -> Result<f64> {
    let (began, mut done) = (thread_seconds(), 0);
    while thread_seconds() - began < 0.1 {
        black_box(fold(black_box(batch), fast)?);
        done += batch.len();
    }
    Ok(done as f64 / (thread_seconds() - began) / 1e6)
}

fn fold(batch: &Batch, read: fn(&[u8]) -> Result<u64>) -> Result<u64> {
    batch.records().try_fold(0_u64, |sum, record| Ok(sum.rotate_left(1) ^ read(record)?))
}

fn mix(sum: u64, word: u64) -> u64 {
    (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23)
}

/// Sums text by words of eight bytes, as a consumer that looks at all of it would.
fn mix_text(mut sum: u64, text: &[u8]) -> u64 {
    let (words, rest) = text.as_chunks::<8>();
    for word in words {
        sum = mix(sum, u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(sum, u64::from_le_bytes(last) ^ (text.len() as u64) << 56)
}

/// Header words in the order in which both readings take them.
const WORDS: &[usize] =
    &[at::SEQ, at::TID, at::TGID, at::EXEC_ID, at::UID, at::MNT_NS, at::PID_NS, at::NET_NS, at::PPID];
const MORE_WORDS: &[usize] = &[at::NS_TID, at::NS_TGID];
const LONGS: &[usize] = &[at::TIME, at::START, at::CGROUP];

/// By the product's decoder: every field of the header and of the event, all text checked to be UTF-8.
fn fast(record: &[u8]) -> Result<u64> {
    let view = View::parse(record)?;
    let mut sum = mix(u64::from(view.event()), u64::from(view.flags()) << 16 | u64::from(view.cpu()));
    for offset in WORDS.iter().chain(MORE_WORDS) {
        sum = mix(sum, view.header_u32(*offset).into());
    }
    for offset in LONGS {
        sum = mix(sum, view.header_u64(*offset));
    }
    sum = mix(sum, view.ret().unwrap_or(0) as u64);
    sum = mix_text(sum, view.comm());
    for index in 0..view.def().fields.len() {
        sum = match view.value(index) {
            None => mix(sum, 1),
            Some(Value::Int(n)) => mix(sum, n as u64),
            Some(Value::Uint(n)) => mix(sum, n),
            Some(Value::Bool(b)) => mix(sum, b.into()),
            Some(Value::Text(text)) => {
                std::str::from_utf8(text.bytes)?;
                let marks = u64::from(text.truncated) << 1 | u64::from(text.from_user);
                mix_text(mix(sum, u64::from(text.true_len) << 2 | marks), text.bytes)
            }
        };
    }
    Ok(sum)
}

/// By hand, byte for byte, from the description of the format.
fn slow(record: &[u8]) -> Result<u64> {
    let number = |offset: usize, bytes: usize| {
        (0..bytes).rev().fold(0_u64, |n, i| n << 8 | u64::from(record.get(offset + i).copied().unwrap_or(0)))
    };
    let event = by_id(number(0, 2) as u16).context("a known event")?;
    ensure!(number(8, 4) as usize == record.len() && record[7] == 1, "length and version");
    let mut sum = mix(number(0, 2), number(2, 2) << 16 | number(4, 2));
    for offset in [12, 24, 28, 40, 44, 56, 60, 64, 68, 72, 76] {
        sum = mix(sum, number(offset, 4));
    }
    for offset in [16, 32, 48] {
        sum = mix(sum, number(offset, 8));
    }
    sum = mix(sum, if number(2, 2) & 16 == 0 { 0 } else { number(80, 8) });
    let comm: Vec<u8> = record[88..104].iter().copied().take_while(|b| *b != 0).collect();
    sum = mix_text(sum, &comm);
    for (i, field) in event.fields.iter().enumerate() {
        let slot = number(112 + 8 * i, 8);
        sum = if number(104, 8) >> i & 1 == 0 {
            mix(sum, 1)
        } else if field.ty.is_variable() {
            let (offset, len, true_len) = (slot & 0xffff, slot >> 16 & 0xffff, slot >> 32 & 0x3fff_ffff);
            let text = record[offset as usize..][..len as usize].to_vec();
            let text = String::from_utf8(text).context("text")?;
            mix_text(mix(sum, true_len << 2 | (slot >> 63) << 1 | slot >> 62 & 1), text.as_bytes())
        } else {
            mix(sum, slot)
        };
    }
    Ok(sum)
}
