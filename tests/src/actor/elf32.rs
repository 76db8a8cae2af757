//! A program that is 32-bit through and through, made by hand: no toolchain is needed to have one.

const BASE: u32 = 0x0804_8000;
const HEADER: u32 = 52;
const SEGMENT: u32 = 32;

/// An i386 executable that opens `path` for reading and ends with the descriptor as its exit code.
#[must_use]
pub fn program(path: &str) -> Vec<u8> {
    let entry = BASE + HEADER + SEGMENT;
    #[rustfmt::skip]
    let mut code = vec![
        0xb8, 5, 0, 0, 0,       // mov eax, 5 (open)
        0xbb, 0, 0, 0, 0,       // mov ebx, path
        0x31, 0xc9,             // xor ecx, ecx
        0x31, 0xd2,             // xor edx, edx
        0xcd, 0x80,             // int 0x80
        0x89, 0xc3,             // mov ebx, eax
        0xb8, 1, 0, 0, 0,       // mov eax, 1 (exit)
        0xcd, 0x80,             // int 0x80
    ];
    let text = entry + code.len() as u32;
    code[6..10].copy_from_slice(&text.to_le_bytes());
    let total = HEADER + SEGMENT + code.len() as u32 + path.len() as u32 + 1;
    let mut out = vec![0x7f, b'E', b'L', b'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let half = |out: &mut Vec<u8>, words: &[u16]| words.iter().for_each(|w| out.extend_from_slice(&w.to_le_bytes()));
    let word = |out: &mut Vec<u8>, words: &[u32]| words.iter().for_each(|w| out.extend_from_slice(&w.to_le_bytes()));
    half(&mut out, &[2, 3]); // executable, i386
    word(&mut out, &[1, entry, HEADER, 0, 0]);
    half(&mut out, &[HEADER as u16, SEGMENT as u16, 1, 0, 0, 0]);
    word(&mut out, &[1, 0, BASE, BASE, total, total, 5, 0x1000]); // PT_LOAD, readable, executable
    out.extend_from_slice(&code);
    out.extend_from_slice(path.as_bytes());
    out.push(0);
    out
}
