//! What `gpulease run` is made of: the command's process group and all that it starts, the terminal it may own, and
//! the coordinator that `--local` starts for it.

pub(crate) mod exit;
pub(crate) mod group;
pub(crate) mod local;
pub(crate) mod terminal;
pub(crate) mod tree;
