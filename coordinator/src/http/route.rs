//! What a path asks for.

use fedledger_ledger::tiles::Tile;

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// The signed head of the log.
    Checkpoint,
    /// Hashes or entries.
    Tile(Tile),
    /// Whether the replica runs.
    Health,
    /// Whether it takes part.
    Readiness,
}

impl Route {
    /// What this path asks for, to the letter: nothing is decoded and no other form of a path is known.
    pub fn of(path: &str) -> Option<Self> {
        match path.strip_prefix('/')? {
            "checkpoint" => Some(Self::Checkpoint),
            "healthz" => Some(Self::Health),
            "readyz" => Some(Self::Readiness),
            path => path.parse().ok().map(Self::Tile),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_paths_lead_anywhere() {
        assert_eq!(Route::of("/checkpoint"), Some(Route::Checkpoint));
        assert_eq!(Route::of("/healthz"), Some(Route::Health));
        assert_eq!(Route::of("/readyz"), Some(Route::Readiness));
        assert_eq!(Route::of("/tile/1/x001/002.p/3"), Some(Route::Tile("tile/1/x001/002.p/3".parse().unwrap())));
        for path in [
            "",
            "/",
            "*",
            "checkpoint",
            "//checkpoint",
            "/checkpoint/",
            "/Checkpoint",
            "/check%70oint",
            "/tile/0/000/",
            "/tile/0/../0/000",
            "/./checkpoint",
            "/tile/0/0",
            "/tile",
            "tile/0/000",
        ] {
            assert_eq!(Route::of(path), None, "{path}");
        }
    }
}
