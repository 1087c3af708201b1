//! The services over a loopback port: the real actor, a journal in memory, the generated clients.

mod edge;
mod harness;
mod sessions;
mod unary;
mod watches;
