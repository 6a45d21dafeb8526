//! Flags of exports, commands and block status.

macro_rules! flags {
    ($(#[$doc:meta])* $name:ident($bits:ty) { $($(#[$flag_doc:meta])* $flag:ident = $bit:expr;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
        pub struct $name(pub $bits);

        impl $name {
            /// No flag.
            pub const NONE: Self = Self(0);
            $($(#[$flag_doc])* pub const $flag: Self = Self(1 << $bit);)*

            /// These and those.
            #[must_use]
            pub const fn with(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// Whether all of `other` are among these.
            #[must_use]
            pub const fn has(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// These but for those.
            #[must_use]
            pub const fn without(self, other: Self) -> Self {
                Self(self.0 & !other.0)
            }
        }
    };
}

flags! {
    /// What an export is, and which commands it takes (`NBD_FLAG_...`).
    TransmissionFlags(u16) {
        /// Always set.
        HAS_FLAGS = 0;
        /// It can't be written.
        READ_ONLY = 1;
        /// Flush.
        FLUSH = 2;
        /// The flag FUA.
        FUA = 3;
        /// The disk turns; never set by us.
        ROTATIONAL = 4;
        /// Trim.
        TRIM = 5;
        /// Write zeroes, with or without a hole.
        WRITE_ZEROES = 6;
        /// The flag DF; goes with structured replies.
        DF = 7;
        /// What one connection flushes is durable for all of them.
        MULTI_CONN = 8;
        /// Cache.
        CACHE = 10;
        /// The flag FAST_ZERO.
        FAST_ZERO = 11;
    }
}

flags! {
    /// How a command is meant (`NBD_CMD_FLAG_...`).
    CommandFlags(u16) {
        /// What it writes is durable before it is answered.
        FUA = 0;
        /// Zeros that take up room.
        NO_HOLE = 1;
        /// Data in one piece.
        DF = 2;
        /// One span of block status.
        REQ_ONE = 3;
        /// Zeros only if that is faster than writing data.
        FAST_ZERO = 4;
    }
}

flags! {
    /// What `base:allocation` says of a span (`NBD_STATE_...`); none means data.
    StatusFlags(u32) {
        /// It takes up no room.
        HOLE = 0;
        /// It reads as zeros.
        ZERO = 1;
    }
}
