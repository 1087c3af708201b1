//! What `gpulease run` is made of: the command's process group, the terminal it may own, and the
//! coordinator that `--local` starts for it.

pub(crate) mod group;
pub(crate) mod local;
mod terminal;
