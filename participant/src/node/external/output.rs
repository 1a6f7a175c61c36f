//! What a trainer prints: progress for the node, everything else for a log of bounded size.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    results::{self, Progress},
    text::plain_bytes,
};

/// Longest line that is looked at as a whole, in bytes. A longer one is no progress, and only its beginning is quoted.
const LINE_LENGTH_MAX: usize = 4096;

/// Size at which the log is begun anew, in bytes; the one before is kept beside it.
const LOG_SIZE_BYTES_MAX: u64 = 512 * 1024;

/// Last lines that are quoted when a trainer fails.
const LINES_QUOTED: usize = 5;

/// Longest quoted line, in characters.
const QUOTED_LENGTH_MAX: usize = 160;

/// Shortest time from one told progress to the next, unless it is the end.
const PROGRESS_INTERVAL_MIN: Duration = Duration::from_millis(500);

/// Where a trainer's output goes. The log is written as it comes: a person may be reading it.
#[derive(Debug)]
pub struct Output {
    log: File,
    path: PathBuf,
    written: u64,
    last_lines: VecDeque<String>,
    told: Option<(Instant, Progress)>,
}

/// Puts lines together that come in pieces.
#[derive(Debug, Default)]
pub struct Lines {
    line: Vec<u8>,
}

impl Lines {
    /// Takes bytes as they were read, and gives every line that ends in them, without its end.
    pub fn push(&mut self, bytes: &[u8], mut give: impl FnMut(&[u8])) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (part, ends) = part.strip_suffix(b"\n").map_or((part, false), |part| (part, true));
            let room = LINE_LENGTH_MAX.saturating_sub(self.line.len());
            self.line.extend_from_slice(part.get(..room.min(part.len())).unwrap_or_default());
            if ends {
                give(&self.line);
                self.line.clear();
            }
        }
    }

    /// Gives the last line, if it has no end.
    pub fn finish(&mut self, give: impl FnOnce(&[u8])) {
        if !self.line.is_empty() {
            give(&self.line);
            self.line.clear();
        }
    }
}

impl Output {
    /// Begins a log, or goes on with one. The folder must be the node's own, not the program's.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let log = File::options().create(true).append(true).open(path)?;
        let written = log.metadata()?.len();
        Ok(Self { log, path: path.to_owned(), written, last_lines: VecDeque::new(), told: None })
    }

    /// Takes a line of standard output: progress that is worth telling, or something for the log.
    pub fn standard(&mut self, line: &[u8], now: Instant) -> Option<Progress> {
        let Some(progress) = results::progress(line) else {
            self.log(line);
            return None;
        };
        let is_due = self.told.as_ref().is_none_or(|(at, told)| {
            *told != progress
                && (progress.percent == 100 || now.saturating_duration_since(*at) >= PROGRESS_INTERVAL_MIN)
        });
        is_due.then(|| {
            self.told = Some((now, progress.clone()));
            progress
        })
    }

    /// Takes a line for the log. A disk that is full costs the log only.
    pub fn log(&mut self, line: &[u8]) {
        if self.last_lines.len() >= LINES_QUOTED {
            self.last_lines.pop_front();
        }
        self.last_lines.push_back(plain_bytes(line, QUOTED_LENGTH_MAX));
        if let Err(error) = self.write(line) {
            tracing::debug!(%error, log = %self.path.display(), "a trainer's log cannot be written");
        }
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.written >= LOG_SIZE_BYTES_MAX {
            fs::rename(&self.path, self.path.with_extension("old.log"))?;
            self.log = File::options().create(true).append(true).open(&self.path)?;
            self.written = 0;
        }
        self.written = self.written.saturating_add(line.len() as u64).saturating_add(1);
        self.log.write_all(line)?;
        self.log.write_all(b"\n")
    }

    /// The last lines of the log, on one line.
    pub fn last_lines(&self) -> String {
        let lines: Vec<&str> = self.last_lines.iter().map(String::as_str).filter(|line| !line.is_empty()).collect();
        lines.join(" | ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for piece in pieces {
            lines.push(piece, |line| found.push(line.to_vec()));
        }
        lines.finish(|line| found.push(line.to_vec()));
        found
    }

    #[test]
    fn lines_come_in_pieces() {
        let expected: [&[u8]; 4] = [b"one", b"", b"two", b"three"];
        for pieces in [&[&b"one\n\ntwo\nthree"[..]][..], &[b"on", b"e\n", b"\ntw", b"o\nthree"]] {
            assert_eq!(collect(pieces), expected);
        }
        let long = vec![b'x'; 3 * LINE_LENGTH_MAX];
        let found = collect(&[&long, &long, b"\nnext\n"]);
        assert_eq!((found[0].len(), found[1].as_slice(), found.len()), (LINE_LENGTH_MAX, &b"next"[..], 2));
    }

    #[test]
    fn the_log_is_bounded_and_ends_with_the_last_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trainer.log");
        let mut output = Output::open(&path).unwrap();
        let lines = 4 * LOG_SIZE_BYTES_MAX / 1000;
        for number in 0..lines {
            output.log(format!("{number} {}", "x".repeat(1000)).as_bytes());
        }
        output.log(b"MemoryError\x1b[31m");
        let sizes: u64 =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
        assert!((LOG_SIZE_BYTES_MAX..2 * LOG_SIZE_BYTES_MAX + 4096).contains(&sizes), "{sizes}");
        let quoted = output.last_lines();
        assert!(quoted.ends_with("| MemoryError [31m") && quoted.starts_with(&(lines - 4).to_string()), "{quoted}");
        assert!(quoted.len() < LINES_QUOTED * (QUOTED_LENGTH_MAX + 3));
        assert!(fs::read(&path).unwrap().ends_with(b"MemoryError\x1b[31m\n"));
        // The next run goes on below what the last one said.
        Output::open(&path).unwrap().log(b"once more");
        assert!(fs::read_to_string(&path).unwrap().contains("MemoryError"));
    }

    #[test]
    fn progress_is_told_in_measure() {
        let folder = tempfile::tempdir().unwrap();
        let mut output = Output::open(&folder.path().join("trainer.log")).unwrap();
        let start = Instant::now();
        let mut told = |ms: u64, line: &str| {
            let progress = output.standard(line.as_bytes(), start + Duration::from_millis(ms));
            progress.map(|progress| progress.percent)
        };
        assert_eq!(told(0, r#"{"progress": 0.1}"#), Some(10));
        assert_eq!(told(1, r#"{"progress": 0.2}"#), None);
        assert_eq!(told(600, r#"{"progress": 0.1}"#), None, "nothing new");
        assert_eq!(told(600, r#"{"progress": 0.3}"#), Some(30));
        assert_eq!(told(601, r#"{"progress": 1}"#), Some(100));
        assert_eq!(told(2000, "epoch 3"), None);
        assert_eq!(output.last_lines(), "epoch 3", "progress does not fill the log");
    }
}
