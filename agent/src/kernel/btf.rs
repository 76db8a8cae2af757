//! A reader of the kernel's type information (Documentation/bpf/btf.rst): member offsets, sizes, enum values and
//! tracepoint arguments, for the facts that the programs need. aya loads BTF but shows no members.
//!
//! Kinds it does not know end the reading; malformed input is an error, never a panic.

use std::collections::{HashMap, HashSet};

use haechi_ebpf::fact::{ABSENT, FACTS, Source};
use haechi_ebpf::program::PROGRAMS;

/// Why type information cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not BTF, or of another byte order.
    #[error("this is not BTF of this machine's byte order")]
    Magic,
    /// It ends in the middle of something.
    #[error("BTF is cut short at byte {0}")]
    Short(usize),
    /// A type of an unknown kind.
    #[error("BTF has a type of unknown kind {0}")]
    Kind(u8),
}

/// Offsets of `struct btf_header` members.
const HDR_LEN: usize = 4;
const TYPE_OFF: usize = 8;
const TYPE_LEN: usize = 12;
const STR_OFF: usize = 16;
const STR_LEN: usize = 20;

/// Deepest nesting of anonymous members and typedefs that is followed.
const DEPTH: usize = 16;

mod kind {
    pub(super) const PTR: u8 = 2;
    pub(super) const STRUCT: u8 = 4;
    pub(super) const UNION: u8 = 5;
    pub(super) const ENUM: u8 = 6;
    pub(super) const TYPEDEF: u8 = 8;
    pub(super) const VOLATILE: u8 = 9;
    pub(super) const CONST: u8 = 10;
    pub(super) const RESTRICT: u8 = 11;
    pub(super) const FUNC: u8 = 12;
    pub(super) const FUNC_PROTO: u8 = 13;
    pub(super) const TYPE_TAG: u8 = 18;
    pub(super) const ENUM64: u8 = 19;

    /// Bytes behind the common part, for `vlen` entries.
    pub(super) fn extra(kind: u8, vlen: usize) -> Option<usize> {
        Some(match kind {
            1 | 14 | 17 => 4,
            3 => 12,
            STRUCT | UNION | 15 | ENUM64 => 12 * vlen,
            ENUM | FUNC_PROTO => 8 * vlen,
            0 | PTR | 7 | TYPEDEF | VOLATILE | CONST | RESTRICT | FUNC | 16 | TYPE_TAG => 0,
            _ => return None,
        })
    }
}

/// Parsed type information.
pub struct Btf {
    types: Vec<u8>,
    strings: Vec<u8>,
    /// Where each type begins, by id; id 0 is void.
    offsets: Vec<u32>,
    structs: HashMap<Box<str>, Vec<u32>>,
    typedefs: HashMap<Box<str>, u32>,
    functions: HashMap<Box<str>, u32>,
    constants: HashMap<Box<str>, u32>,
}

struct Type {
    name: u32,
    kind: u8,
    vlen: usize,
    flagged: bool,
    size: u32,
    body: usize,
}

impl Btf {
    /// Parses the bytes of `/sys/kernel/btf/vmlinux`.
    ///
    /// # Errors
    /// When they are not BTF, cut short, or hold unknown kinds.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let word = |at: usize| word_at(bytes, at).ok_or(Error::Short(at));
        if bytes.get(..2) != Some(&0xeb9f_u16.to_ne_bytes()) {
            return Err(Error::Magic);
        }
        let header = word(HDR_LEN)? as usize;
        let part = |off: usize, len: usize| -> Result<Vec<u8>, Error> {
            let start = header.saturating_add(word(off)? as usize);
            let end = start.saturating_add(word(len)? as usize);
            bytes.get(start..end).map(<[u8]>::to_vec).ok_or(Error::Short(start))
        };
        let mut btf = Self {
            types: part(TYPE_OFF, TYPE_LEN)?,
            strings: part(STR_OFF, STR_LEN)?,
            offsets: vec![0],
            structs: HashMap::new(),
            typedefs: HashMap::new(),
            functions: HashMap::new(),
            constants: HashMap::new(),
        };
        btf.index()?;
        Ok(btf)
    }

    fn index(&mut self) -> Result<(), Error> {
        let wanted: HashSet<&str> = FACTS.iter().filter_map(|f| f.source.structs()).flatten().collect();
        let hooked: HashSet<&str> = PROGRAMS.iter().flat_map(|p| p.hook.functions()).copied().collect();
        let mut at = 0;
        while at < self.types.len() {
            let id = self.offsets.len() as u32;
            let ty = self.type_at(at).ok_or(Error::Short(at))?;
            let extra = kind::extra(ty.kind, ty.vlen).ok_or(Error::Kind(ty.kind))?;
            if ty.body + extra > self.types.len() {
                return Err(Error::Short(at));
            }
            let name = self.string(ty.name);
            match ty.kind {
                kind::STRUCT if wanted.contains(name) => {
                    let name = name.into();
                    self.structs.entry(name).or_default().push(id);
                }
                kind::TYPEDEF if name.starts_with("btf_trace_") => drop(self.typedefs.insert(name.into(), id)),
                kind::FUNC if hooked.contains(name) || name.starts_with("bpf_lsm_") => {
                    self.functions.insert(name.into(), id);
                }
                kind::ENUM | kind::ENUM64 => self.index_constants(&ty),
                _ => (),
            }
            self.offsets.push(at as u32);
            at = ty.body + extra;
        }
        Ok(())
    }

    fn index_constants(&mut self, ty: &Type) {
        let size = if ty.kind == kind::ENUM { 8 } else { 12 };
        for i in 0..ty.vlen {
            let at = ty.body + i * size;
            let (Some(name), Some(value)) = (word_at(&self.types, at), word_at(&self.types, at + 4)) else { return };
            let name = self.string(name);
            if ["BPF_FUNC_", "IORING_OP_"].iter().any(|p| name.starts_with(p)) {
                self.constants.insert(name.into(), value);
            }
        }
    }

    fn type_at(&self, at: usize) -> Option<Type> {
        let info = word_at(&self.types, at + 4)?;
        Some(Type {
            name: word_at(&self.types, at)?,
            kind: (info >> 24 & 0x1f) as u8,
            vlen: (info & 0xffff) as usize,
            flagged: info >> 31 == 1,
            size: word_at(&self.types, at + 8)?,
            body: at + 12,
        })
    }

    fn get(&self, id: u32) -> Option<Type> {
        (id != 0).then(|| self.offsets.get(id as usize)).flatten().and_then(|at| self.type_at(*at as usize))
    }

    fn string(&self, at: u32) -> &str {
        let bytes = self.strings.get(at as usize..).unwrap_or(&[]);
        let len = bytes.iter().position(|b| *b == 0).unwrap_or(0);
        std::str::from_utf8(&bytes[..len]).unwrap_or("")
    }

    /// Follows typedefs and qualifiers to what they stand for.
    fn strip(&self, mut id: u32) -> Option<(u32, Type)> {
        for _ in 0..DEPTH {
            let ty = self.get(id)?;
            if !matches!(ty.kind, kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG) {
                return Some((id, ty));
            }
            id = ty.size;
        }
        None
    }

    /// Byte offset and type of a member, looked for in anonymous members too.
    fn member(&self, id: u32, name: &str, depth: usize) -> Option<(u32, u32)> {
        let (_, ty) = self.strip(id)?;
        if depth == 0 || !matches!(ty.kind, kind::STRUCT | kind::UNION) {
            return None;
        }
        for i in 0..ty.vlen {
            let at = ty.body + 12 * i;
            let (member, inner, bits) =
                (word_at(&self.types, at)?, word_at(&self.types, at + 4)?, word_at(&self.types, at + 8)?);
            let (bits, width) = if ty.flagged { (bits & 0xff_ffff, bits >> 24) } else { (bits, 0) };
            if self.string(member) == name {
                // A bit field has no address.
                return (width == 0 && bits % 8 == 0).then_some((bits / 8, inner));
            }
            if member == 0
                && let Some((offset, found)) = self.member(inner, name, depth - 1)
            {
                return Some((bits / 8 + offset, found));
            }
        }
        None
    }

    /// Offset of `struct.member.member`. Several structs of one name must agree.
    fn offset(&self, path: &str) -> Option<u32> {
        let mut names = path.split('.');
        let candidates = self.structs.get(names.next()?)?;
        let members: Vec<_> = names.collect();
        let mut found = candidates.iter().filter_map(|id| {
            members.iter().try_fold((0, *id), |(offset, id), name| {
                self.member(id, name, DEPTH).map(|(more, inner)| (offset + more, inner))
            })
        });
        let first = found.next()?.0;
        found.all(|(offset, _)| offset == first).then_some(first)
    }

    fn size(&self, name: &str) -> Option<u32> {
        let sizes: Vec<u32> = self.structs.get(name)?.iter().filter_map(|id| self.get(*id)).map(|t| t.size).collect();
        let first = *sizes.first()?;
        sizes.iter().all(|s| *s == first).then_some(first)
    }

    /// The prototype of a tracepoint's programs: a hidden first argument, then those of the tracepoint.
    fn prototype(&self, tracepoint: &str) -> Option<Type> {
        let typedef = self.typedefs.get(format!("btf_trace_{tracepoint}").as_str())?;
        let (_, pointer) = self.strip(*typedef)?;
        let (_, proto) = self.strip(pointer.size)?;
        (pointer.kind == kind::PTR && proto.kind == kind::FUNC_PROTO && proto.vlen > 0).then_some(proto)
    }

    /// Position of the first argument of a tracepoint that points to a struct; its hidden first one does not count.
    fn argument(&self, tracepoint: &str, name: &str) -> Option<u32> {
        let proto = self.prototype(tracepoint)?;
        (1..proto.vlen).find_map(|i| {
            let (_, argument) = self.strip(word_at(&self.types, proto.body + 8 * i + 4)?)?;
            let target = (argument.kind == kind::PTR).then(|| self.strip(argument.size)).flatten()?.1;
            (target.kind == kind::STRUCT && self.string(target.name) == name).then_some(i as u32 - 1)
        })
    }

    /// Whether the kernel has a function that some program hooks.
    #[must_use]
    pub fn has_function(&self, name: &str) -> bool {
        self.functions.contains_key(name)
    }

    /// Whether the kernel has a tracepoint.
    #[must_use]
    pub fn has_tracepoint(&self, name: &str) -> bool {
        self.typedefs.contains_key(format!("btf_trace_{name}").as_str())
    }

    /// Id of the type that stands for a tracepoint's program.
    #[must_use]
    pub fn tracepoint_id(&self, name: &str) -> Option<u32> {
        self.typedefs.get(format!("btf_trace_{name}").as_str()).copied()
    }

    /// Id of a function that some program hooks.
    #[must_use]
    pub fn function_id(&self, name: &str) -> Option<u32> {
        self.functions.get(name).copied()
    }

    /// Looks up one fact; [`ABSENT`] where the kernel has none.
    #[must_use]
    pub fn fact(&self, source: Source) -> u32 {
        match source {
            Source::Offset(paths) => paths.split('|').find_map(|p| self.offset(p)),
            Source::Size(name) => self.size(name),
            Source::EnumValue(name) => self.constants.get(name).copied(),
            Source::Argument(path) => path.split_once('.').and_then(|(t, s)| self.argument(t, s)),
            Source::Arguments(name) => self.prototype(name).map(|proto| proto.vlen as u32 - 1),
        }
        .unwrap_or(ABSENT)
    }

    /// All facts, in the order of the table.
    #[must_use]
    pub fn facts(&self) -> Vec<u32> {
        FACTS.iter().map(|f| self.fact(f.source)).collect()
    }
}

fn word_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_ne_bytes(*b))
}

#[cfg(test)]
mod tests;
