//! What holds for the journal on disk alone.
