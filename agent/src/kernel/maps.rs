//! Writing filters into maps: fills the generation that is not in force, then flips one word of the live block.

use std::borrow::Borrow;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, MapError};
use aya::{Ebpf, Pod};
use haechi_ebpf::event::MAX_EVENTS;
use haechi_ebpf::filter::{LEAF_KEY, PREFIX_DATA, SUFFIX_DATA, SYSCALL_NUMBERS, live};

use super::filters::{Compiled, comm_words, leaf_bytes, trie_bytes};
use super::load::Error;

type Typed<T> = Result<T, Error>;

/// Takes a map out of the object, as what it must be.
pub(super) fn take<T: TryFrom<Map, Error = MapError>>(object: &mut Ebpf, name: &'static str) -> Typed<T> {
    let map = object.take_map(name).ok_or(Error::Map { name, reason: "not in the kernel object".into() })?;
    T::try_from(map).map_err(|e| Error::Map { name, reason: e.to_string() })
}

/// The maps that hold filters.
pub(super) struct Filters {
    live: Array<MapData, [u8; live::BYTES]>,
    uids: HashMap<MapData, [u32; 2], [u64; 2]>,
    comms: HashMap<MapData, [u64; 3], [u64; 2]>,
    cgroups: HashMap<MapData, [u64; 2], [u64; 2]>,
    leaves: HashMap<MapData, [u8; LEAF_KEY], u64>,
    prefixes: LpmTrie<MapData, [u8; PREFIX_DATA], u64>,
    suffixes: LpmTrie<MapData, [u8; SUFFIX_DATA], u64>,
    /// What the live block holds.
    block: Box<[u8; live::BYTES]>,
    generation: usize,
    /// What each generation holds.
    held: [Compiled; 2],
}

fn fault(name: &'static str) -> impl Fn(MapError) -> Error {
    move |error| Error::Map { name, reason: error.to_string() }
}

/// Replaces what a keyed map holds for one generation.
fn refill<K: Pod, V: Pod>(
    map: &mut HashMap<MapData, K, V>,
    name: &'static str,
    old: impl Iterator<Item = K>,
    new: impl Iterator<Item = (K, V)>,
) -> Typed<()> {
    for key in old {
        ignore_missing(map.remove(&key)).map_err(fault(name))?;
    }
    for (key, value) in new {
        map.insert(key, value, 0).map_err(fault(name))?;
    }
    Ok(())
}

fn refill_trie<const N: usize>(
    map: &mut LpmTrie<MapData, [u8; N], u64>,
    name: &'static str,
    generation: u64,
    old: &std::collections::BTreeMap<Vec<u8>, u64>,
    new: &std::collections::BTreeMap<Vec<u8>, u64>,
) -> Typed<()>
where
    [u8; N]: Pod,
{
    let key = |path: &Vec<u8>| {
        let (bits, data) = trie_bytes::<N>(generation, path);
        Key::new(bits, data)
    };
    for path in old.keys() {
        ignore_missing(map.remove(key(path).borrow())).map_err(fault(name))?;
    }
    for (path, sets) in new {
        map.insert(&key(path), *sets, 0).map_err(fault(name))?;
    }
    Ok(())
}

/// An entry that is gone already need not be removed.
fn ignore_missing(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(()),
        Err(MapError::SyscallError(e)) if e.io_error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

impl Filters {
    /// Takes the filter maps out of the object.
    pub(super) fn take(object: &mut Ebpf) -> Typed<Self> {
        Ok(Self {
            live: take(object, ".bss")?,
            uids: take(object, "UIDS")?,
            comms: take(object, "COMMS")?,
            cgroups: take(object, "CGROUPS")?,
            leaves: take(object, "LEAVES")?,
            prefixes: take(object, "PREFIXES")?,
            suffixes: take(object, "SUFFIXES")?,
            block: Box::new([0; live::BYTES]),
            generation: 0,
            held: Default::default(),
        })
    }

    /// Puts `new` in force. On an error the generation in force stays as it was.
    pub(super) fn apply(&mut self, new: Compiled) -> Typed<()> {
        let generation = 1 - self.generation;
        let old = std::mem::take(&mut self.held[generation]);
        let result = self.fill(generation as u64, &old, &new);
        self.write_block(generation, &new);
        // After a failure both may be there: remember both, so that the next filling clears them.
        self.held[generation] = if result.is_ok() { new } else { merge(old, new) };
        result?;
        self.live.set(0, *self.block, 0).map_err(fault("LIVE"))?;
        self.generation = generation;
        self.block[live::GENERATION] = generation as u8;
        self.live.set(0, *self.block, 0).map_err(fault("LIVE"))
    }

    fn write_block(&mut self, generation: usize, new: &Compiled) {
        let events = &mut self.block[live::EVENTS + generation * MAX_EVENTS * live::EVENT_BYTES..];
        let events = &mut events[..MAX_EVENTS * live::EVENT_BYTES];
        events.fill(0);
        for (event, words) in &new.events {
            let entry = &mut events[*event as usize * live::EVENT_BYTES..];
            for (place, word) in entry.chunks_exact_mut(8).zip(words) {
                place.copy_from_slice(&word.to_ne_bytes());
            }
        }
        let calls = &mut self.block[live::SYSCALLS + generation * 2 * SYSCALL_NUMBERS * 4..];
        let calls = &mut calls[..2 * SYSCALL_NUMBERS * 4];
        calls.fill(0);
        for ((compat, number), action) in &new.actions {
            let at = 4 * (usize::from(*compat) * SYSCALL_NUMBERS + usize::from(*number));
            calls[at..at + 4].copy_from_slice(&action.encode().to_ne_bytes());
        }
        let watched = &mut self.block[live::WATCHED + generation * SYSCALL_NUMBERS..][..SYSCALL_NUMBERS];
        watched.fill(0);
        for (_, number) in new.actions.keys() {
            watched[usize::from(*number)] = 1;
        }
    }

    fn fill(&mut self, generation: u64, old: &Compiled, new: &Compiled) -> Typed<()> {
        let g = generation;
        refill(
            &mut self.uids,
            "UIDS",
            old.uids.keys().map(|k| [g as u32, *k]),
            new.uids.iter().map(|(k, v)| ([g as u32, *k], *v)),
        )?;
        refill(
            &mut self.comms,
            "COMMS",
            old.comms.keys().map(|k| comm_words(g, k)),
            new.comms.iter().map(|(k, v)| (comm_words(g, k), *v)),
        )?;
        refill(
            &mut self.cgroups,
            "CGROUPS",
            old.cgroups.keys().map(|k| [g, *k]),
            new.cgroups.iter().map(|(k, v)| ([g, *k], *v)),
        )?;
        refill(
            &mut self.leaves,
            "LEAVES",
            old.leaves.keys().map(|k| leaf_bytes(g, k)),
            new.leaves.iter().map(|(k, v)| (leaf_bytes(g, k), *v)),
        )?;
        refill_trie(&mut self.prefixes, "PREFIXES", g, &old.prefixes, &new.prefixes)?;
        refill_trie(&mut self.suffixes, "SUFFIXES", g, &old.suffixes, &new.suffixes)
    }
}

fn merge(mut a: Compiled, b: Compiled) -> Compiled {
    a.uids.extend(b.uids);
    a.comms.extend(b.comms);
    a.cgroups.extend(b.cgroups);
    a.leaves.extend(b.leaves);
    a.prefixes.extend(b.prefixes);
    a.suffixes.extend(b.suffixes);
    a.actions.extend(b.actions);
    a
}
