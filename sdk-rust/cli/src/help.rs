//! The parts of the help texts that several verbs share, so that they cannot drift apart.

/// Examples, then the exit codes of a client verb.
macro_rules! with_exit_codes {
    ($($text:literal),+ $(,)?) => {
        concat!(
            $($text),+,
            "\nExit codes:\n",
            "  0  done\n",
            "  1  the coordinator refused, or another error\n",
            "  2  bad usage\n",
            "  3  no coordinator answers at the endpoint\n",
            "  4  no capacity now, or the wait was over: nothing was granted\n",
            "  5  not found\n",
        )
    };
}

pub(crate) use with_exit_codes;
