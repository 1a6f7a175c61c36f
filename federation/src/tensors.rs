//! Files of weights, updates and optimiser state: safetensors in one canonical form.
//!
//! A file's SHA-256 is its name on the ledger, so each content must have exactly one file. The canonical form is a
//! subset of [safetensors](https://github.com/huggingface/safetensors): the tensors stand in the order of their names
//! (bytewise), without gaps; the header is compact JSON with the keys `dtype`, `shape`, `data_offsets`, padded with
//! spaces to a multiple of eight bytes; there is no `__metadata__`. Files whose tensors have one dtype, written by the
//! `safetensors` crate without metadata, have this form already.
//!
//! Whoever reads a file knows its [`TensorLayout`] beforehand, from the plan or from the base version. So reading is
//! comparison: a header that differs by one bit is refused, and nothing in a file decides how much is allocated.

mod half;
mod hashing;
mod header;
mod layout;
mod payload;
mod reader;
mod stream_writer;
mod writer;

#[cfg(test)]
mod tests;

pub(crate) use half::{widen_bf16, widen_f16};
pub use hashing::HashingWriter;
pub use header::{HEADER_SIZE_BYTES_MAX, layout_of};
pub(crate) use layout::Block;
pub use layout::{
    Dtype, ELEMENTS_MAX, LayoutError, LayoutMismatch, NAME_LENGTH_MAX, TENSORS_MAX, TensorLayout, TensorSpec,
};
pub(crate) use payload::PayloadReader;
pub use payload::{FileError, Input, TensorReader, read_tensors};
pub use reader::{ReadError, Run, UpdateReader, payload_of, read_f32};
pub use stream_writer::{StreamWriteError, TensorWriter};
pub use writer::{Tensor, WriteError, write_tensors};
