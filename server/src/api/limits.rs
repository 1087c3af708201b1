//! Every bound of the wire (P19), each with the arithmetic that chose it.
//!
//! A caller that goes over one gets a status that names it; nobody else notices. Bounds of single fields are the
//! core's ([`gpulease_core::request`]); what is here bounds messages, streams, pages and connections.

use std::time::Duration;

/// The longest message taken: 4 MiB, gRPC's own default, holds 1,000 renewals (32 KiB) a hundred times over.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1_024 * 1_024;
/// Leases of one answer, encoded: 3 MiB leave a quarter of a client's default 4 MiB for the rest of the message.
pub(super) const LEASES_BYTES_MAX: usize = 3 * 1_024 * 1_024;
/// Streams open at once on one connection: a unary call that waits is one, so 4,096 waiting callers share one.
pub(super) const STREAMS_PER_CONNECTION_MAX: u32 = 4_096;
/// Calls in progress on one connection: as many as streams, so that a caller is never held back in silence.
pub(super) const CALLS_PER_CONNECTION_MAX: usize = STREAMS_PER_CONNECTION_MAX as usize;
/// Connections open at once, or three quarters of the files that the process may open, if those are fewer: 8,192 of
/// about 64 KiB of buffers are 512 MiB at the worst; one more is closed.
pub(super) const CONNECTIONS_MAX: usize = 8_192;
/// Files that are no connections: some 30 of the journal, its snapshots, the listeners and the runtime, twice over.
pub(super) const OWN_FILES: usize = 64;
/// How long a new connection may take for its greeting: 10 s, a hundred slow round trips.
pub(super) const GREETING_WAIT_MAX: Duration = Duration::from_secs(10);
/// The greeting of HTTP/2: 24 bytes. After it the connection answers pings, or goes.
pub(super) const GREETING_BYTES: usize = 24;
/// HTTP connections open at once: probes and a scraper or two keep a handful.
pub(super) const HTTP_CONNECTIONS_MAX: usize = 256;
/// How long an HTTP connection lives: 60 s are some scrapes; who never ends its request goes then.
pub(super) const HTTP_CONNECTION_AGE_MAX: Duration = Duration::from_secs(60);
/// Messages of one session in flight: 4,096 at 1 ms each are four million a second, more than any link carries.
pub(super) const IN_FLIGHT_MAX: usize = 4_096;
/// Leases renewed by one message: 1,000 of 24 bytes are 24 KB, and a holder of 10,000 needs ten messages.
pub(super) const RENEWALS_MAX: usize = 1_000;
/// Messages read in a row before replies get a turn: 256 of about 200 bytes are one receive buffer of 50 KiB.
pub(super) const READ_BURST_MAX: usize = 256;
/// Replies written in a row before requests get a turn: as many, so that neither side starves the other.
pub(super) const WRITE_BURST_MAX: usize = 256;
/// How long a session may stay without its hello: 10 s, a hundred slow round trips.
pub(super) const HELLO_WAIT_MAX: Duration = Duration::from_secs(10);
/// Watches, and subscriptions, open at once, each kind: 1,024 with 4 batches of about 1 MiB are 4 GiB at the very worst,
/// and 16 MiB with batches of 4 KiB.
pub(super) const READERS_MAX: usize = 1_024;
/// Sessions open at once: 400 nodes with 40 programs each; at some 40 KiB of buffers an idle one, 640 MiB.
pub(super) const SESSIONS_MAX: usize = 16_384;
/// The longest quiet of a watch: 5 s, half of the 10 s that P20 promises, so that a late timer keeps the promise.
pub(super) const BOOKMARK_AFTER: Duration = Duration::from_secs(5);
/// The page where none is asked for: 100 leases of about 400 bytes are 40 KB.
pub(super) const PAGE_DEFAULT: u32 = 100;
/// The largest page: 1,000 leases of about 400 bytes are 400 KB.
pub(super) const PAGE_MAX: u32 = 1_000;
/// The longest page token: a letter, 16 hexadecimal digits of position and 8 of checksum are 25.
pub(super) const PAGE_TOKEN_BYTES: usize = 25;
/// States in a filter: six exist; twice as many allow for a repetition.
pub(super) const STATES_MAX: usize = 12;
/// Devices named in a request for samples: as many as a lease may hold.
pub(super) const SAMPLE_DEVICES_MAX: usize = 1_024;
/// The slowest subscription: one message an hour.
pub(super) const SAMPLE_INTERVAL_MAX: Duration = Duration::from_secs(3_600);
/// Operations told of with one renewal: 10^12 are a million a second for eleven days.
pub(super) const OPERATIONS_MAX: u64 = 1_000_000_000_000;
/// Totals of operations in one answer: 10,000 of some 100 bytes are 1 MB.
pub(super) const OPERATION_TOTALS_MAX: usize = 10_000;
/// Lease ids in each list of an operator's answer: 100,000 of at most 5 bytes are 500 KB.
pub(super) const LEASE_IDS_MAX: usize = 100_000;
/// The page of processes where none is asked for: 16 devices with some tens of processes each are 100 KB.
pub(super) const PROCESS_DEVICES_DEFAULT: u32 = 16;
/// The largest: 100 devices with 1,024 processes each take the actor some 20 ms; what does not fit into the bytes below
/// goes to the next page.
pub(super) const PROCESS_DEVICES_MAX: u32 = 100;
/// Processes of one answer, encoded: as much as leases.
pub(super) const PROCESSES_BYTES_MAX: usize = LEASES_BYTES_MAX;
/// How long names of users are looked up: 1 s, as a directory on the network may be away; then they go unsaid.
pub(super) const USER_NAMES_WAIT_MAX: Duration = Duration::from_secs(1);
/// An operator's reason, in bytes: some twelve lines of text.
pub(super) const REASON_BYTES_MAX: usize = 1_024;
/// A quiet connection is pinged after 30 s, well under the minutes after which firewalls forget it.
pub(super) const KEEPALIVE_EVERY: Duration = Duration::from_secs(30);
/// A ping unanswered for 10 s ends the connection: with the 30 s above a dead peer is gone after 40 s.
pub(super) const KEEPALIVE_WAIT_MAX: Duration = Duration::from_secs(10);
/// What may be on its way on one stream: 1 MiB is 10 Gbit/s at 0.8 ms, and holds 256 KiB bursts four times.
pub(super) const STREAM_WINDOW_BYTES: u32 = 1_024 * 1_024;
/// What may be on its way on one connection: four full streams.
pub(super) const CONNECTION_WINDOW_BYTES: u32 = 4 * STREAM_WINDOW_BYTES;
/// A header list: 16 KiB, the default of most HTTP/2 servers.
pub(super) const HEADERS_BYTES_MAX: u32 = 16 * 1_024;
/// What may still be open after a stop: 4 s, so that the whole stop stays within 5 s.
pub(super) const STOP_WAIT_MAX: Duration = Duration::from_secs(4);
/// Watches of health hear the last change before they end: 100 ms are many turns of the runtime.
pub(super) const HEALTH_TOLD_AFTER: Duration = Duration::from_millis(100);
