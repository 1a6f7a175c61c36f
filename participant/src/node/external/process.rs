//! One run of a trainer: its process group, its limits and its end.
//!
//! A shell starts the program (`supervisor.sh`): it waits until it is bound to its processors, sets the limits of single
//! processes and files, which the program inherits, and leaves a watcher in the program's process group that holds one end of
//! a pipe. The node asks the group to end by writing to the pipe. The system closes it when the node is killed, so no trainer
//! outlives its node: a lock or a signal at the parent's death would need code between fork and exec, which safe Rust does not
//! have. While the node is there, it looks at what the whole group uses (`watch`), and kills the group itself in the end. A
//! process that leaves the group (`setsid`) is not followed.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    path::Path,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, ChildStdin, Command},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    output::{Lines, Output},
    processors,
    program::{Excess, Limits, Program},
    results::Progress,
    watch::Watch,
};
use crate::node::trainer_thread::NICENESS;

/// The shell that every system has which is like Unix.
const SHELL: &str = "/bin/sh";

/// What the shell runs.
const SUPERVISOR: &str = include_str!("supervisor.sh");

/// What the supervising shell is told first, when the program may begin.
const BEGIN: &[u8] = b"begin\n";

/// What it is told when the program is asked to end.
const END_SOON: &[u8] = b"end\n";

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
    /// The most memory that its processes were seen to have, in bytes; none where the system does not tell.
    pub peak_bytes: Option<u64>,
}

/// A process group, which is killed when this is dropped.
struct Group {
    leader: Option<Pid>,
    /// Whether the leader was waited for, so that its number may be given to another process.
    is_reaped: bool,
}

impl Group {
    fn of(child: &Child) -> Self {
        let leader = child.id().and_then(|number| Pid::from_raw(number.try_into().ok()?));
        Self { leader, is_reaped: false }
    }

    /// Kills what is left of it. The number of a group is nobody else's while a process of it is left.
    fn kill(&self) {
        if let Some(leader) = self.leader
            && !(self.is_reaped && test_kill_process(leader).is_ok())
        {
            // Mostly there is none left.
            kill_process_group(leader, Signal::KILL).ok();
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// How a run ended.
#[derive(Debug)]
pub enum Ended {
    /// By itself.
    Exited(ExitStatus),
    /// Its time was up.
    TimeUp,
    /// It used too much.
    Exceeded(Excess),
    /// The node has no use for it any more.
    Cancelled,
}

/// Runs a program in a folder until it ends, its time is up, it uses too much or it is cancelled; then nothing of its group is
/// left. It is bound to the first of `processors`, as many as its limits say. Progress is told on the way, everything else it
/// prints goes to `output`.
///
/// # Errors
///
/// What the system says when it does not start the shell, or does not tell of its end.
pub async fn run(
    program: &Program,
    folder: &Path,
    limits: Limits,
    processors: &[usize],
    stop: &CancellationToken,
    output: &mut Output,
    mut tell: impl FnMut(Progress),
) -> io::Result<Run> {
    let mut child = command(program, folder, limits).spawn()?;
    let mut group = Group::of(&child);
    processors::bind(child.id(), processors, limits.threads);
    let mut leash = child.stdin.take();
    tell_group(&mut leash, BEGIN).await;
    let watch = Watch::new(child.id(), folder, limits);
    let mut pump = Pump::new(&mut child, output, watch);
    let ended = tokio::select! {
        ended = pump.until_end(&mut child, &mut tell) => ended?,
        () = sleep(limits.time) => Ended::TimeUp,
        () = stop.cancelled() => Ended::Cancelled,
    };
    if matches!(ended, Ended::TimeUp | Ended::Cancelled) {
        tell_group(&mut leash, END_SOON).await;
        timeout(limits.grace, pump.until_end(&mut child, &mut tell)).await.ok();
    }
    group.is_reaped = pump.status.is_some();
    group.kill();
    drop(leash);
    let peak_bytes = pump.watch.peak_bytes();
    let closed = timeout(KILLED_WAIT_MAX, pump.until_closed(&mut child, &mut tell)).await;
    group.is_reaped = pump.status.is_some();
    if closed.is_err() {
        tracing::warn!(trainer = program.name, "a process of a trainer left its group and may go on");
    }
    Ok(Run { ended, peak_bytes })
}

fn command(program: &Program, folder: &Path, limits: Limits) -> Command {
    let mut command = Command::new(SHELL);
    command.args(["-c", SUPERVISOR, "trainer"]);
    command.args([limits.memory / 1024, limits.file / 512].map(|number| number.to_string()));
    command.arg(NICENESS.to_string());
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

/// Tells the supervising shell something. That it is gone already is no failure.
async fn tell_group(leash: &mut Option<ChildStdin>, line: &[u8]) {
    if let Some(leash) = leash
        && let Err(error) = leash.write_all(line).await
    {
        tracing::debug!(%error, "a trainer is not there any more to be told something");
    }
}

/// Reads what a program prints, and waits for its end at the same time: a program that waits for its output to be read would
/// never end.
struct Pump<'a, O, E> {
    standard: Stream<O>,
    error: Stream<E>,
    output: &'a mut Output,
    watch: Watch,
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
    fn new(child: &mut Child, output: &'a mut Output, watch: Watch) -> Self {
        let (standard, error) = (Stream::new(child.stdout.take()), Stream::new(child.stderr.take()));
        Self { standard, error, output, watch, status: None }
    }
}

impl<O: AsyncRead + Unpin, E: AsyncRead + Unpin> Pump<'_, O, E> {
    /// Until the program itself has ended, or has used too much; others of its group may still print.
    async fn until_end(&mut self, child: &mut Child, tell: &mut impl FnMut(Progress)) -> io::Result<Ended> {
        loop {
            match (self.watch.excess(), self.status) {
                (Some(excess), _) => return Ok(Ended::Exceeded(excess)),
                (None, Some(status)) => return Ok(Ended::Exited(status)),
                (None, None) => self.step(child, tell).await?,
            }
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
                self.status = Some(status?);
                self.watch.end().await;
            }
            () = self.watch.look_when_due(), if self.status.is_none() => {}
            read = self.standard.read(), if self.standard.source.is_some() => {
                let (output, mut told) = (&mut *self.output, Vec::new());
                self.standard.give(read, |line| told.extend(output.standard(line, Instant::now())));
                if !told.is_empty() && self.status.is_none() {
                    self.watch.look().await;
                }
                told.into_iter().for_each(&mut *tell);
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
