//! How events and state become the bytes of a batch or a snapshot, and back.
//!
//! It promises one leading byte that names the format, and an error, never a guess, for bytes that it does not know or
//! that have something left over. It leaves checksums to the journal and the meaning of the types to the core.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The format that `encode` writes: postcard, with the types of this release.
const FORMAT_POSTCARD_3: u8 = 3;

/// The format of the first release, which no longer decodes as a whole.
const FORMAT_OLDEST: u8 = 1;

/// Why a value could not be encoded or decoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// There is no format byte.
    #[error("cannot decode a record: it is empty")]
    Empty,
    /// The format byte is of another release.
    #[error(
        "cannot decode a record: its format is {found}, this gpulease reads {FORMAT_POSTCARD_3}; start the release that wrote it"
    )]
    UnknownFormat {
        /// The byte that was found.
        found: u8,
    },
    /// The value does not fit the type.
    #[error("cannot encode or decode a record")]
    Postcard(#[from] postcard::Error),
    /// Bytes remain after the value.
    #[error("cannot decode a record: {bytes} bytes are left over")]
    LeftOver {
        /// How many.
        bytes: usize,
    },
}

/// Encodes a value behind its format byte.
///
/// # Errors
/// `Postcard` if the type cannot be written by postcard (a defect of the type).
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CodecError> {
    Ok(postcard::to_extend(value, vec![FORMAT_POSTCARD_3])?)
}

/// Decodes what `encode` wrote.
///
/// # Errors
/// `Empty`, `UnknownFormat`, `LeftOver`, or `Postcard` if the bytes are not such a value.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (format, rest) = bytes.split_first().ok_or(CodecError::Empty)?;
    if *format != FORMAT_POSTCARD_3 {
        return Err(CodecError::UnknownFormat { found: *format });
    }
    let (value, left) = postcard::take_from_bytes(rest)?;
    if !left.is_empty() {
        return Err(CodecError::LeftOver { bytes: left.len() });
    }
    Ok(value)
}

/// Decodes what a value begins with, such as its first field, and leaves the rest alone. It takes older formats too: all
/// of them are postcard, so that the first field is where it was as long as it is the same.
///
/// # Errors
/// As [`decode`], without `LeftOver`.
pub fn decode_beginning<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (format, rest) = bytes.split_first().ok_or(CodecError::Empty)?;
    if !(FORMAT_OLDEST..=FORMAT_POSTCARD_3).contains(format) {
        return Err(CodecError::UnknownFormat { found: *format });
    }
    Ok(postcard::take_from_bytes(rest)?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_comes_back_as_it_was() {
        let value = (7_u64, "lease".to_owned(), vec![Some(1_i32), None]);
        let bytes = encode(&value).unwrap();
        assert_eq!(bytes[0], FORMAT_POSTCARD_3);
        assert_eq!(decode::<(u64, String, Vec<Option<i32>>)>(&bytes).unwrap(), value);
        assert_eq!(decode_beginning::<u64>(&bytes[..6]).unwrap(), 7);
        assert_eq!(decode_beginning::<u64>(&[FORMAT_OLDEST, 9]).unwrap(), 9);
    }

    #[test]
    fn foreign_bytes_are_refused() {
        let mut bytes = encode(&5_u32).unwrap();
        assert!(matches!(decode::<u32>(&[]), Err(CodecError::Empty)));
        assert!(matches!(decode::<u32>(&[9, 5]), Err(CodecError::UnknownFormat { found: 9 })));
        assert!(matches!(
            decode::<String>(&[FORMAT_POSTCARD_3, 200]),
            Err(CodecError::Postcard(_))
        ));
        bytes.push(0);
        assert!(matches!(decode::<u32>(&bytes), Err(CodecError::LeftOver { bytes: 1 })));
    }
}
