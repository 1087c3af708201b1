//! A copy of the library that lacks a symbol, as an older driver's does.
//!
//! It promises that the dynamic linker does not find the symbol: its name in the table of dynamic names becomes another
//! one of the same length.

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

#[cfg(test)]
mod tests {
    use super::hide;

    #[test]
    fn every_name_of_the_symbol_is_renamed_and_longer_ones_are_not() {
        let mut image = b"\x7fELF\0nvmlInit\0nvmlInit_v2\0xnvmlInit\0nvmlInit\0".to_vec();
        assert!(hide(&mut image, "nvmlInit"));
        assert_eq!(image, b"\x7fELF\0-vmlInit\0nvmlInit_v2\0xnvmlInit\0-vmlInit\0");
        assert!(!hide(&mut image, "nvmlInit"));
    }

    #[test]
    fn neighbours_share_the_zero_between_them() {
        let mut image = b"\0one\0one\0".to_vec();
        assert!(hide(&mut image, "one"));
        assert_eq!(image, b"\0-ne\0-ne\0");
    }
}
