//! One run of a trainer: its process group, its limits and its end.
//!
//! A shell starts the program (`supervisor.sh`): it sets the limits, which the program inherits, and leaves a watcher in the
//! program's process group that holds one end of a pipe. The node asks the group to end by writing to the pipe, and ends it
//! by closing the pipe. The system closes it, too, when the node is killed, so no trainer outlives its node: a lock or a
//! signal at the parent's death would need code between fork and exec, which safe Rust does not have. A process that leaves
//! the group (`setsid`) is not followed.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    path::Path,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, ChildStdin, Command},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    footprint::Footprint,
    output::{Lines, Output},
    program::{Limits, Program},
    results::Progress,
};

/// The shell that every system has which is like Unix.
const SHELL: &str = "/bin/sh";

/// What the shell runs.
const SUPERVISOR: &str = include_str!("supervisor.sh");

/// By how much a trainer stands back behind the node and everything else: a training of hours must not slow down others.
const NICENESS: u8 = 10;

/// How long the end of a group and of its output is waited for once it was killed.
const KILLED_WAIT_MAX: Duration = Duration::from_secs(5);

/// Bytes of output that are read at a time.
const PIECE_SIZE_BYTES: usize = 8 * 1024;

/// Variables that a trainer inherits, if the node has them. All others, which may hold secrets, it does not see.
const INHERITED: [&str; 10] = [
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
];

/// Variables by which numeric libraries are told how many threads to use.
const THREADS: [&str; 5] =
    ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "RAYON_NUM_THREADS"];

/// Where programs are looked for if the node itself was not told.
const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";

/// What a run came to.
#[derive(Debug)]
pub struct Run {
    /// How it ended.
    pub ended: Ended,
    /// The most memory that the program was seen to have, in bytes, without processes that it has started; none where the
    /// system does not tell.
    pub peak_bytes: Option<u64>,
}

/// How a run ended.
#[derive(Debug)]
pub enum Ended {
    /// By itself.
    Exited(ExitStatus),
    /// Its time was up.
    TimeUp,
    /// The node has no use for it any more.
    Cancelled,
}

/// Runs a program in a folder until it ends, its time is up or it is cancelled; then nothing of its group is left. Progress is
/// told on the way, everything else it prints goes to `output`.
///
/// # Errors
///
/// What the system says when it does not start the shell, or does not tell of its end.
pub async fn run(
    program: &Program,
    folder: &Path,
    limits: Limits,
    stop: &CancellationToken,
    output: &mut Output,
    mut tell: impl FnMut(Progress),
) -> io::Result<Run> {
    let mut child = command(program, folder, limits).spawn()?;
    let mut leash = child.stdin.take();
    let mut pump = Pump::new(&mut child, output);
    let ended = tokio::select! {
        status = pump.until_exit(&mut child, &mut tell) => Ended::Exited(status?),
        () = sleep(limits.time) => Ended::TimeUp,
        () = stop.cancelled() => Ended::Cancelled,
    };
    if !matches!(ended, Ended::Exited(_)) {
        ask_to_end(&mut leash).await;
        timeout(limits.grace, pump.until_exit(&mut child, &mut tell)).await.ok();
    }
    // The watcher kills what is left of the group.
    drop(leash);
    let peak_bytes = pump.footprint.peak_bytes();
    if timeout(KILLED_WAIT_MAX, pump.until_closed(&mut child, &mut tell)).await.is_err() {
        // Nobody but the program itself can have killed the watcher, or a process has left the group.
        child.start_kill().ok();
        tracing::warn!(trainer = program.name, "a process of a trainer left its group and may go on");
    }
    Ok(Run { ended, peak_bytes })
}

fn command(program: &Program, folder: &Path, limits: Limits) -> Command {
    let mut command = Command::new(SHELL);
    command.args(["-c", SUPERVISOR, "trainer"]);
    command.args([limits.memory / 1024, limits.file / 512, u64::from(NICENESS)].map(|number| number.to_string()));
    command.arg(program.path()).args(&program.arguments);
    command.env_clear().envs(environment(program, limits)).current_dir(folder);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    command
}

fn environment(program: &Program, limits: Limits) -> BTreeMap<String, OsString> {
    let inherited = INHERITED.into_iter().filter_map(|name| Some((name.to_owned(), std::env::var_os(name)?)));
    let threads = THREADS.into_iter().map(|name| (name.to_owned(), limits.threads.to_string().into()));
    let own = program.environment.iter().map(|(name, value)| (name.clone(), value.into()));
    let fixed = [("PATH", PATH_DEFAULT), ("PYTHONHASHSEED", "0"), ("PYTHONUNBUFFERED", "1")];
    let fixed = fixed.map(|(name, value)| (name.to_owned(), value.into()));
    // The later ones come first.
    fixed.into_iter().chain(inherited).chain(threads).chain(own).collect()
}

/// Asks the group to end. That it is gone already is no failure.
async fn ask_to_end(leash: &mut Option<ChildStdin>) {
    if let Some(leash) = leash
        && let Err(error) = leash.write_all(b"end\n").await
    {
        tracing::debug!(%error, "a trainer is not there any more to be asked to end");
    }
}

/// Reads what a program prints, and waits for its end at the same time: a program that waits for its output to be read would
/// never end.
struct Pump<'a, O, E> {
    standard: Stream<O>,
    error: Stream<E>,
    output: &'a mut Output,
    footprint: Footprint,
    status: Option<ExitStatus>,
}

struct Stream<S> {
    source: Option<S>,
    lines: Lines,
    piece: Vec<u8>,
}

impl<S: AsyncRead + Unpin> Stream<S> {
    fn new(source: Option<S>) -> Self {
        Self { source, lines: Lines::default(), piece: vec![0; PIECE_SIZE_BYTES] }
    }

    /// Reads once: how many bytes there are; none at the end. It may be dropped while it waits.
    async fn read(&mut self) -> Option<usize> {
        let count = self.source.as_mut()?.read(&mut self.piece).await;
        count.ok().filter(|count| *count > 0)
    }

    /// Gives the lines of what was read.
    fn give(&mut self, read: Option<usize>, give: impl FnMut(&[u8])) {
        match read {
            Some(count) => self.lines.push(self.piece.get(..count).unwrap_or_default(), give),
            None => {
                self.source = None;
                self.lines.finish(give);
            }
        }
    }
}

impl<'a> Pump<'a, tokio::process::ChildStdout, tokio::process::ChildStderr> {
    fn new(child: &mut Child, output: &'a mut Output) -> Self {
        let (standard, error) = (Stream::new(child.stdout.take()), Stream::new(child.stderr.take()));
        Self { standard, error, output, footprint: Footprint::of(child.id()), status: None }
    }
}

impl<O: AsyncRead + Unpin, E: AsyncRead + Unpin> Pump<'_, O, E> {
    /// Until the program itself has ended; others of its group may still print.
    async fn until_exit(&mut self, child: &mut Child, tell: &mut impl FnMut(Progress)) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.status {
                return Ok(status);
            }
            self.step(child, tell).await?;
        }
    }

    /// Until the program has ended and nobody is left who could print.
    async fn until_closed(&mut self, child: &mut Child, tell: &mut impl FnMut(Progress)) -> io::Result<()> {
        while self.status.is_none() || self.standard.source.is_some() || self.error.source.is_some() {
            self.step(child, tell).await?;
        }
        Ok(())
    }

    async fn step(&mut self, child: &mut Child, tell: &mut impl FnMut(Progress)) -> io::Result<()> {
        tokio::select! {
            status = child.wait(), if self.status.is_none() => {
                // From now on the system may give its number to another process.
                self.footprint.end();
                self.status = Some(status?);
            }
            () = self.footprint.look_when_due(), if self.status.is_none() => {}
            read = self.standard.read(), if self.standard.source.is_some() => {
                let (output, footprint) = (&mut *self.output, &mut self.footprint);
                self.standard.give(read, |line| {
                    if let Some(progress) = output.standard(line, Instant::now()) {
                        footprint.look();
                        tell(progress);
                    }
                });
            }
            read = self.error.read(), if self.error.source.is_some() => {
                let output = &mut *self.output;
                self.error.give(read, |line| output.log(line));
            }
            else => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
