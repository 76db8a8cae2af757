//! Writing filters into maps: fills the generation that is not in force, then flips one word.

use std::borrow::Borrow;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, MapError};
use aya::{Ebpf, Pod};
use haechi_ebpf::event::MAX_EVENTS;
use haechi_ebpf::filter::{LEAF_KEY, PREFIX_DATA, SUFFIX_DATA, SYSCALL_NUMBERS, setting, word};

use super::filters::{Compiled, Words, comm_words, leaf_bytes, trie_bytes};
use super::load::Error;

type Typed<T> = Result<T, Error>;

/// Takes a map out of the object, as what it must be.
pub(super) fn take<T: TryFrom<Map, Error = MapError>>(object: &mut Ebpf, name: &'static str) -> Typed<T> {
    let map = object.take_map(name).ok_or(Error::Map { name, reason: "not in the kernel object".into() })?;
    T::try_from(map).map_err(|e| Error::Map { name, reason: e.to_string() })
}

/// The maps that hold filters.
pub(super) struct Filters {
    settings: Array<MapData, [u64; setting::COUNT]>,
    events: Array<MapData, [u64; word::COUNT]>,
    syscalls: Array<MapData, u32>,
    uids: HashMap<MapData, [u32; 2], [u64; 2]>,
    comms: HashMap<MapData, [u64; 3], [u64; 2]>,
    cgroups: HashMap<MapData, [u64; 2], [u64; 2]>,
    leaves: HashMap<MapData, [u8; LEAF_KEY], u64>,
    prefixes: LpmTrie<MapData, [u8; PREFIX_DATA], u64>,
    suffixes: LpmTrie<MapData, [u8; SUFFIX_DATA], u64>,
    words: [u64; setting::COUNT],
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
    pub(super) fn take(object: &mut Ebpf, own_tgid: u32, env_bytes: u32) -> Typed<Self> {
        let mut words = [0; setting::COUNT];
        words[setting::OWN_TGID] = own_tgid.into();
        words[setting::ENV_MAX] = env_bytes.min(0x2000).into();
        let mut filters = Self {
            settings: take(object, "SETTINGS")?,
            events: take(object, "EVENT_FILTERS")?,
            syscalls: take(object, "SYSCALLS")?,
            uids: take(object, "UIDS")?,
            comms: take(object, "COMMS")?,
            cgroups: take(object, "CGROUPS")?,
            leaves: take(object, "LEAVES")?,
            prefixes: take(object, "PREFIXES")?,
            suffixes: take(object, "SUFFIXES")?,
            words,
            held: Default::default(),
        };
        filters.settings.set(0, filters.words, 0).map_err(fault("SETTINGS"))?;
        Ok(filters)
    }

    /// Puts `new` in force. On an error the generation in force stays as it was.
    pub(super) fn apply(&mut self, new: Compiled) -> Typed<()> {
        let generation = 1 - self.words[setting::GENERATION];
        let old = std::mem::take(&mut self.held[generation as usize]);
        let result = self.fill(generation, &old, &new);
        // After a failure both may be there: remember both, so that the next filling clears them.
        self.held[generation as usize] = if result.is_ok() { new } else { merge(old, new) };
        result?;
        self.words[setting::GENERATION] = generation;
        self.settings.set(0, self.words, 0).map_err(fault("SETTINGS"))
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
        refill_trie(&mut self.suffixes, "SUFFIXES", g, &old.suffixes, &new.suffixes)?;
        let index =
            |compat: bool, number: u16| (g as u32 * 2 + u32::from(compat)) * SYSCALL_NUMBERS as u32 + u32::from(number);
        for (compat, number) in old.actions.keys() {
            self.syscalls.set(index(*compat, *number), 0, 0).map_err(fault("SYSCALLS"))?;
        }
        for ((compat, number), action) in &new.actions {
            self.syscalls.set(index(*compat, *number), action.encode(), 0).map_err(fault("SYSCALLS"))?;
        }
        for event in 0..MAX_EVENTS as u32 {
            let words: Words = new.events.get(&(event as u16)).copied().unwrap_or_default();
            self.events.set(g as u32 * MAX_EVENTS as u32 + event, words, 0).map_err(fault("EVENT_FILTERS"))?;
        }
        Ok(())
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
