//! The numbers, times and texts that a record's bytes are made of.

use bytes::{Buf, BufMut, Bytes};
use onlyonce_core::{Fence, Timestamp};

use super::CodecError;

/// Unsigned LEB128: seven bits a byte, least significant first, the top bit says that more follow.
pub(super) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while 0x80 <= number {
        out.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    out.put_u8(number as u8);
}

/// The distance from `base`, wrapping, with its sign in the lowest bit (zigzag).
pub(super) fn put_time(out: &mut Vec<u8>, base: u64, time: Timestamp) {
    let distance = time.as_millis().wrapping_sub(base) as i64;
    put_varint(out, (distance << 1 ^ distance >> 63) as u64);
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.put_slice(bytes);
}

pub(super) struct Reader {
    pub(super) bytes: Bytes,
    /// The record's revision, which times are written relative to.
    pub(super) base: u64,
}

impl Reader {
    pub(super) fn array<const N: usize>(
        &mut self,
        field: &'static str,
    ) -> Result<[u8; N], CodecError> {
        let mut array = [0; N];
        self.bytes.try_copy_to_slice(&mut array).map_err(|_| CodecError::Truncated(field))?;
        Ok(array)
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, CodecError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self, field: &'static str) -> Result<u16, CodecError> {
        self.array(field).map(u16::from_le_bytes)
    }

    pub(super) fn varint(&mut self, field: &'static str) -> Result<u64, CodecError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8(field)?;
            let bits = u64::from(byte & 0x7F);
            // The tenth byte has room for one bit, and no number ends in a needless zero byte:
            // each number has one spelling.
            if bits << shift >> shift != bits || (byte == 0 && 0 < shift) {
                return Err(CodecError::Invalid(field));
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(CodecError::Invalid(field))
    }

    pub(super) fn varint32(&mut self, field: &'static str) -> Result<u32, CodecError> {
        u32::try_from(self.varint(field)?).map_err(|_| CodecError::Invalid(field))
    }

    pub(super) fn time(&mut self, field: &'static str) -> Result<Timestamp, CodecError> {
        let zigzag = self.varint(field)?;
        let distance = (zigzag >> 1) ^ (zigzag & 1).wrapping_neg();
        Ok(Timestamp::from_millis(self.base.wrapping_add(distance)))
    }

    pub(super) fn fence(&mut self, field: &'static str) -> Result<Fence, CodecError> {
        Fence::new(self.varint(field)?).ok_or(CodecError::Invalid(field))
    }

    pub(super) fn bytes(&mut self, field: &'static str) -> Result<Bytes, CodecError> {
        let len = usize::try_from(self.varint(field)?).map_err(|_| CodecError::Invalid(field))?;
        if self.bytes.remaining() < len {
            return Err(CodecError::Truncated(field));
        }
        Ok(self.bytes.split_to(len))
    }

    pub(super) fn text(&mut self, field: &'static str) -> Result<String, CodecError> {
        let bytes = self.bytes(field)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| CodecError::Invalid(field))
    }

    pub(super) fn rest(&mut self) -> Bytes {
        self.bytes.split_to(self.bytes.remaining())
    }
}
