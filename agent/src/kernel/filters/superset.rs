//! What the kernel lets through is never less than what was asked for: compiled filters, read as the programs read them,
//! against the exact tests of userspace. Names and paths are as long as the keys can hold, and one more.

use haechi_ebpf::event::{ptrace, security_file_open as open};
use haechi_ebpf::filter::WRITE_FLAGS;

use super::*;

/// An event as a program sees it.
#[derive(Debug)]
struct Seen {
    uid: u32,
    comm: String,
    cgroup: u64,
    path: String,
    flags: u32,
}

/// What `agent-ebpf/src/kernel/gate.rs` does, over what the maps would hold.
fn passes(filters: &Compiled, id: EventId, seen: &Seen) -> bool {
    let Some(words) = filters.events.get(&id) else { return false };
    let choose = |known: Option<&[u64; 2]>, any: u64| known.map_or(any, |[takes, refuses]| (any | takes) & !refuses);
    let has = |bit: u64| words[word::HAS] & bit != 0;
    let mut sets = words[word::WANTED];
    if has(has::UID) {
        sets &= choose(filters.uids.get(&seen.uid), words[word::UID_ANY]);
    }
    if has(has::COMM) {
        sets &= choose(filters.comms.get(&comm_key(&seen.comm)), words[word::COMM_ANY]);
    }
    if has(has::CGROUP) {
        sets &= choose(filters.cgroups.get(&seen.cgroup), words[word::CGROUP_ANY]);
    }
    if id != open::ID {
        return sets != 0;
    }
    if seen.flags & WRITE_FLAGS == 0 {
        sets &= !words[word::WRITES];
    }
    let path = seen.path.as_bytes();
    let mut by_path = words[word::PATH_ANY];
    let leaf = path.rsplit(|b| *b == b'/').next().unwrap_or(path);
    let leaf = &leaf[..leaf.len().min(LEAF_NAME - 1)];
    let first = leaf.first().copied().unwrap_or(0);
    let alike = words[word::LEAF_LENGTHS] >> leaf.len() & words[word::LEAF_FIRSTS] >> (first & 63) & 1 == 1;
    if has(has::LEAF) && alike {
        by_path |= filters.leaves.get(leaf).copied().unwrap_or(0);
    }
    by_path |= if sets & by_path != 0 || sets & words[word::ENDS] == 0 { 0 } else { ends(filters, words, path) };
    sets & by_path != 0
}

/// Sets that take the beginning or the end of a path.
fn ends(filters: &Compiled, words: &Words, path: &[u8]) -> u64 {
    let longest = |map: &BTreeMap<Vec<u8>, u64>, text: &[u8]| {
        (0..=text.len()).rev().find_map(|n| map.get(&text[..n])).copied().unwrap_or(0)
    };
    let mut sets = 0;
    if words[word::HAS] & has::PREFIX != 0 {
        sets |= longest(&filters.prefixes, &path[..path.len().min(PREFIX_DATA - 1)]);
    }
    if words[word::HAS] & has::SUFFIX != 0 {
        let end: Vec<u8> = path.iter().rev().take(SUFFIX_DATA - 1).copied().collect();
        sets |= longest(&filters.suffixes, &end);
    }
    sets
}

/// Whether somebody asked for it, exactly.
fn asked(demands: &[Demand], id: EventId, seen: &Seen) -> bool {
    demands.iter().any(|d| {
        d.event == id
            && d.uids.matches(&seen.uid)
            && d.comms.matches(seen.comm.as_str())
            && d.cgroups.matches(&seen.cgroup)
            && (id != open::ID || d.paths.matches(&seen.path))
            && (id != open::ID || !d.writes || seen.flags & WRITE_FLAGS != 0)
    })
}

/// Numbers that look like chance and are the same every time (xorshift).
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % n
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    /// Two letters only, so that names meet; now and then as long as a key, one less, one more.
    fn text(&mut self, lengths: &[usize]) -> String {
        (0..self.of(lengths)).map(|_| self.of(&['a', 'a', 'a', 'b'])).collect()
    }

    fn path(&mut self) -> String {
        let depth = 1 + self.below(3);
        (0..depth)
            .map(|_| format!("/{}", self.text(&[1, 1, 2, 3, 31, 32, 33, 62, 63, 64, 65, 253, 254, 255, 256])))
            .collect()
    }

    fn some<T>(&mut self, most: usize, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| make(self)).collect()
    }

    fn choice<T>(&mut self, mut make: impl FnMut(&mut Self) -> T) -> Choice<T> {
        match self.below(4) {
            0 => Choice { only: self.some(2, &mut make), not: Vec::new() },
            1 => Choice { only: Vec::new(), not: self.some(2, &mut make) },
            2 => Choice { only: self.some(2, &mut make), not: self.some(2, &mut make) },
            _ => Choice::default(),
        }
    }

    fn comm(&mut self) -> String {
        self.text(&[1, 2, 14, 15, 16, 17])
    }

    fn demand(&mut self) -> Demand {
        let paths = match self.below(5) {
            0 => Paths::default(),
            _ => Paths {
                leaves: self.some(2, |c| leaf_of(&c.path())),
                prefixes: self.some(2, |c| cut(&c.path(), 0, c.below(300))),
                suffixes: self.some(2, |c| {
                    let path = c.path();
                    let from = c.below(path.len());
                    cut(&path, from, path.len())
                }),
            },
        };
        Demand {
            event: self.of(&[open::ID, open::ID, open::ID, ptrace::ID]),
            syscall: None,
            paths,
            uids: self.choice(|c| c.below(3) as u32),
            comms: self.choice(Self::comm),
            cgroups: self.choice(|c| c.below(3) as u64),
            writes: self.below(2) == 0,
            if_cheap: false,
        }
    }

    /// An event near what is asked for: half of the paths are made of a demand's own pieces.
    fn seen(&mut self, demands: &[Demand]) -> Seen {
        let mut path = self.path();
        if !demands.is_empty() && self.below(2) == 0 {
            let Paths { leaves, prefixes, suffixes } = &demands[self.below(demands.len())].paths;
            let more = self.text(&[0, 0, 1, 300]);
            path = match (leaves.first(), prefixes.first(), suffixes.first()) {
                (Some(leaf), ..) if self.below(3) == 0 => format!("{path}/{leaf}"),
                (_, Some(prefix), _) if self.below(2) == 0 => format!("{prefix}{more}"),
                (_, _, Some(suffix)) => format!("/{more}{suffix}"),
                _ => path,
            };
        }
        let mut comm = self.comm();
        comm.truncate(15);
        Seen {
            uid: self.below(3) as u32,
            comm,
            cgroup: self.below(3) as u64,
            path,
            flags: self.of(&[0, 1, 2, 0o1000, 0o2000]),
        }
    }
}

fn leaf_of(path: &str) -> String {
    path.rsplit('/').next().unwrap_or_default().to_owned()
}

fn cut(text: &str, from: usize, to: usize) -> String {
    text[from..to.clamp(from, text.len())].to_owned()
}

#[test]
fn whatever_was_asked_for_passes() {
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    let (mut wanted, mut stopped) = (0, 0);
    for _ in 0..2_000 {
        let most = chance.of(&[1, 4, 4, 100]);
        let demands = chance.some(most, Chance::demand);
        let filters = compile(&demands, |_| None);
        for _ in 0..20 {
            let seen = chance.seen(&demands);
            for id in [open::ID, ptrace::ID] {
                let (asked, passes) = (asked(&demands, id, &seen), passes(&filters, id, &seen));
                assert!(passes || !asked, "{seen:?} is stopped, and was asked for by {demands:?}");
                wanted += u32::from(asked);
                stopped += u32::from(!passes);
            }
        }
    }
    assert!(wanted > 1_000 && stopped > 1_000, "{wanted} wanted and {stopped} stopped show little");
}

fn of_path(paths: Paths) -> Compiled {
    compile(&[Demand::at(open::ID, paths)], |_| None)
}

fn opens(filters: &Compiled, path: &str) -> bool {
    passes(filters, open::ID, &Seen { uid: 0, comm: "x".into(), cgroup: 1, path: path.into(), flags: 0 })
}

#[test]
fn a_key_holds_what_fits_and_cuts_the_rest() {
    // The longest name that is told apart whole, and one of which only the beginning counts.
    for (length, exact) in [(LEAF_NAME - 2, true), (LEAF_NAME - 1, false), (LEAF_NAME, false)] {
        let name = "n".repeat(length);
        let filters = of_path(Paths { leaves: vec![name.clone()], ..Paths::default() });
        assert!(opens(&filters, &format!("/{name}")), "{length}");
        assert_eq!(!opens(&filters, &format!("/{name}n")), exact, "{length}");
        assert!(!opens(&filters, &format!("/{}", &name[1..])) || length == LEAF_NAME, "{length}");
    }
    let most = PREFIX_DATA - 1;
    for length in [most - 1, most, most + 1] {
        let path = format!("/{}", "p".repeat(length - 1));
        let filters = of_path(Paths { prefixes: vec![path.clone()], ..Paths::default() });
        assert!(opens(&filters, &format!("{path}/x")), "{length}");
        let shorter = &path[..length - 1];
        assert_eq!(opens(&filters, shorter), length > most, "{length}");
    }
    let most = SUFFIX_DATA - 1;
    for length in [most - 1, most, most + 1] {
        let end = format!("x{}", "s".repeat(length - 1));
        let filters = of_path(Paths { suffixes: vec![end.clone()], ..Paths::default() });
        assert!(opens(&filters, &format!("/y/{end}")), "{length}");
        assert_eq!(opens(&filters, &format!("/y/z{}", &end[1..])), length > most, "{length}");
    }
}

#[test]
fn the_last_set_takes_whatever_has_no_set_of_its_own() {
    let of = |uid: u32| Demand { uids: Choice { only: vec![uid], not: vec![] }, ..Demand::of(ptrace::ID) };
    // Set 0 is that of the events that the tree needs, set 63 that of the overflow.
    for (count, overflows) in [(SETS - 3, false), (SETS - 2, false), (SETS - 1, true), (SETS, true)] {
        let demands: Vec<Demand> = (0..count as u32).map(of).collect();
        let filters = compile(&demands, |_| None);
        let by = |uid| {
            passes(&filters, ptrace::ID, &Seen { uid, comm: "x".into(), cgroup: 1, path: String::new(), flags: 0 })
        };
        assert!((0..count as u32).all(by), "{count}");
        assert_eq!(by(count as u32 + 1), overflows, "{count}");
    }
}

#[test]
fn a_map_that_would_be_over_its_limit_filters_no_more() {
    let leaves = |n: u32| (0..n).map(|i| i.to_string()).collect();
    let full = of_path(Paths { leaves: leaves(ENTRIES), ..Paths::default() });
    assert!(opens(&full, "/7") && !opens(&full, "/other"));
    let over = of_path(Paths { leaves: leaves(ENTRIES + 1), ..Paths::default() });
    assert!(over.leaves.is_empty() && opens(&over, "/7") && opens(&over, "/other"));
}
