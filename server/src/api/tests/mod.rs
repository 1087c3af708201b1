//! The services over a loopback port: the real actor, a journal in memory, the generated clients.

mod edge;
mod harness;
mod notice_events;
mod notices;
mod operations;
mod operators;
mod plans;
mod processes;
mod races;
mod sessions;
mod unary;
mod watches;
