//! A copy of the library that lacks a symbol, as an older driver's does.
//!
//! It promises that the dynamic linker does not find the symbol: its name in the table of dynamic names becomes another
//! one of the same length. A library that is already loaded keeps its symbols.

/// Renames `symbol` in the image of a library. False when it has no such name.
pub(crate) fn hide(image: &mut [u8], symbol: &str) -> bool {
    let name: Vec<u8> = [b"\0", symbol.as_bytes(), b"\0"].concat();
    let mut found = false;
    let mut from = 0;
    while let Some(at) = image[from..].windows(name.len()).position(|window| window == name) {
        image[from + at + 1] = b'-';
        from += at + name.len() - 1;
        found = true;
    }
    found
}
