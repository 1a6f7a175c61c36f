use std::{fs, path::PathBuf};

use super::*;
use crate::node::external::program::tests::program;

/// Longest time that a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// The trainer of a folder with a shell script.
const SECTION: &str = "program = \"/bin/sh\"\narguments = [\"train.sh\"]\nfiles = [\"train.sh\"]";

/// A folder with a shell script as its trainer.
struct Bench {
    directory: tempfile::TempDir,
    processors: Vec<usize>,
    stop: CancellationToken,
}

/// What a run has shown.
struct Shown {
    ended: Ended,
    told: Vec<Progress>,
    log: String,
    last_lines: String,
}

impl Bench {
    fn new(script: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let bench = Self { directory, processors: Vec::new(), stop: CancellationToken::new() };
        fs::write(bench.at("train.sh"), script).unwrap();
        bench
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    async fn run(&self, section: &str) -> Shown {
        let section = format!("{SECTION}\n{section}");
        let program = program(self.directory.path(), &section);
        let limits = Limits { grace: Duration::from_millis(200), ..program.limits };
        let log = self.at("trainer.log");
        let mut output = Output::open(&log).unwrap();
        let mut told = Vec::new();
        let folder = self.directory.path();
        let running =
            run(&program, folder, limits, &self.processors, &self.stop, &mut output, |told_now| told.push(told_now));
        let ended = timeout(PATIENCE, running).await.unwrap().unwrap().ended;
        let log = String::from_utf8_lossy(&fs::read(log).unwrap()).into_owned();
        Shown { ended, told, log, last_lines: output.last_lines() }
    }

    /// Waits until a file is there that the script makes.
    async fn until(&self, name: &str) {
        let looking = async {
            while !self.at(name).exists() {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, looking).await.unwrap();
    }

    /// The process whose id the script has written into a file.
    fn process(&self, name: &str) -> u32 {
        fs::read_to_string(self.at(name)).unwrap().trim().parse().unwrap()
    }
}

fn code(ended: &Ended) -> Option<i32> {
    match ended {
        Ended::Exited(status) => status.code(),
        Ended::TimeUp | Ended::Exceeded(_) | Ended::Cancelled => None,
    }
}

/// Whether a process is there and not just waiting to be looked at.
fn runs(process: u32) -> bool {
    let output = std::process::Command::new("ps").args(["-o", "stat=", "-p", &process.to_string()]).output().unwrap();
    let state = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    !state.is_empty() && !state.starts_with('Z')
}

/// The end of a process that was killed is seen a moment later.
async fn until_gone(process: u32) {
    let looking = async {
        while runs(process) {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, looking).await.unwrap();
}

#[tokio::test]
async fn a_program_works_in_its_folder_with_what_it_is_told() {
    let script = r#"
        cat > here < /dev/stdin
        env | sort > environment
        echo '{"progress": 0.5, "message": "half"}'
        echo loading >&2
        printf 'no end of line'
    "#;
    let bench = Bench::new(script);
    let shown = bench.run("cpus = 3\nenvironment = { SITE = \"basel\", HOME = \"/nowhere\" }").await;
    assert_eq!(code(&shown.ended), Some(0), "{}", shown.log);
    assert_eq!(fs::read(bench.at("here")).unwrap(), b"", "there is nothing on standard input");
    let environment = fs::read_to_string(bench.at("environment")).unwrap();
    for line in ["OMP_NUM_THREADS=3", "SITE=basel", "HOME=/nowhere", "PYTHONHASHSEED=0"] {
        assert!(environment.lines().any(|found| found == line), "{line} is missing: {environment}");
    }
    // The test runner itself has these.
    assert!(!environment.contains("CARGO"), "{environment}");
    assert_eq!(shown.told, [Progress { percent: 50, message: "half".to_owned() }]);
    assert_eq!(shown.log.lines().collect::<std::collections::BTreeSet<_>>(), ["loading", "no end of line"].into());
}

#[tokio::test]
async fn a_failure_is_told_with_its_last_lines() {
    let shown = Bench::new("echo starting; echo 'ValueError: bad rows' >&2; exit 3").run("").await;
    assert_eq!(code(&shown.ended), Some(3));
    assert!(shown.last_lines.contains("ValueError: bad rows"), "{}", shown.last_lines);
    let shown = Bench::new("kill -KILL $$").run("").await;
    assert!(matches!(shown.ended, Ended::Exited(status) if !status.success() && status.code().is_none()));
    let bench = Bench::new("");
    let mut output = Output::open(&bench.at("trainer.log")).unwrap();
    let missing = program(bench.directory.path(), "program = \"no-such-program\"");
    let run = run(&missing, bench.directory.path(), missing.limits, &[], &bench.stop, &mut output, |_| ()).await;
    let run = run.unwrap();
    assert_eq!(code(&run.ended), Some(127));
    assert!(output.last_lines().contains("no-such-program"), "{}", output.last_lines());
}

#[tokio::test]
async fn memory_and_files_are_limited() {
    let hungry = "x=0123456789abcdef; while :; do x=$x$x$x$x; done";
    let shown = Bench::new(hungry).run("memory_max = \"64 MiB\"").await;
    assert!(code(&shown.ended) != Some(0) && matches!(shown.ended, Ended::Exited(_)), "{:?}", shown.ended);
    let long = "while :; do printf '%01048576d' 0; done > state";
    let bench = Bench::new(long);
    let shown = bench.run("file_max = \"16 MiB\"").await;
    assert!(code(&shown.ended) != Some(0) && matches!(shown.ended, Ended::Exited(_)), "{:?}", shown.ended);
    assert_eq!(fs::metadata(bench.at("state")).unwrap().len(), 16 << 20);
    // A core of a program that has records in memory would leave them on the disk.
    let shown = Bench::new("ulimit -c; ulimit -f").run("file_max = \"16 MiB\"").await;
    assert_eq!(shown.log, "0\n32768\n");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_memory_of_a_program_is_seen_whenever_it_tells_of_its_progress() {
    let peak = |text: &'static str| async move {
        let script =
            format!("x=$(head -c {text} /dev/zero | tr '\\0' x); echo '{{\"progress\": 1}}'; read -r line < gate");
        let bench = Bench::new(&format!("mkfifo gate; {script}"));
        let program = program(bench.directory.path(), SECTION);
        let mut output = Output::open(&bench.at("trainer.log")).unwrap();
        let gate = bench.at("gate");
        // The program goes on once its progress was told.
        let tell = |_| fs::write(&gate, "go on\n").unwrap();
        let run = run(&program, bench.directory.path(), program.limits, &[], &bench.stop, &mut output, tell);
        timeout(PATIENCE, run).await.unwrap().unwrap().peak_bytes.unwrap()
    };
    let (small, large) = (peak("1").await, peak("40000000").await);
    assert!((1 << 16..1 << 24).contains(&small), "{small}");
    assert!((40_000_000..400_000_000).contains(&large), "{large}");
}

#[tokio::test]
async fn a_run_ends_when_its_time_is_up() {
    let bench = Bench::new("trap 'echo saved > saved; exit 0' TERM; while :; do :; done");
    let shown = bench.run("time_max_s = 1").await;
    assert!(matches!(shown.ended, Ended::TimeUp));
    assert_eq!(fs::read_to_string(bench.at("saved")).unwrap(), "saved\n", "it was not asked before it was killed");
}

#[tokio::test]
async fn nothing_of_a_cancelled_run_is_left() {
    // Neither the program nor its child can be asked to end.
    let script = "
        trap '' TERM
        (while :; do :; done) & echo $! > child.tmp; mv child.tmp child
        echo $$ > leader.tmp; mv leader.tmp leader
        while :; do :; done";
    let bench = Bench::new(script);
    let stop = bench.stop.clone();
    let cancelling = async {
        bench.until("leader").await;
        stop.cancel();
    };
    let (shown, ()) = tokio::join!(bench.run(""), cancelling);
    assert!(matches!(shown.ended, Ended::Cancelled));
    for name in ["leader", "child"] {
        until_gone(bench.process(name)).await;
    }
}

#[tokio::test]
async fn children_end_with_the_program() {
    let bench = Bench::new("(while :; do :; done) & echo $! > child; echo done");
    let shown = bench.run("").await;
    assert_eq!((code(&shown.ended), shown.log.as_str()), (Some(0), "done\n"));
    until_gone(bench.process("child")).await;
}

/// A node that is killed has no time for anything: the system closes its end of the pipe, as dropping it does here.
#[tokio::test]
async fn nothing_is_left_when_the_node_is_gone() {
    let bench = Bench::new("trap '' TERM; echo $$ > leader.tmp; mv leader.tmp leader; while :; do :; done");
    let program = program(bench.directory.path(), SECTION);
    let mut child = command(&program, bench.directory.path(), program.limits).kill_on_drop(false).spawn().unwrap();
    tell_group(&mut child.stdin, BEGIN).await;
    bench.until("leader").await;
    drop(child.stdin.take());
    let status = timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
}

#[tokio::test]
async fn a_flood_of_output_neither_blocks_nor_fills_the_disk() {
    let script = "
        i=0; line=$(printf '%04096d' 0)
        while [ $i -lt 1000 ]; do echo $line$line; printf '\\001\\377garbage' >&2; i=$((i+1)); done
        head -c 3000000 /dev/zero; echo last";
    let bench = Bench::new(script);
    let shown = bench.run("").await;
    assert_eq!(code(&shown.ended), Some(0));
    let kept: u64 =
        ["trainer.log", "trainer.old.log"].iter().map(|name| fs::metadata(bench.at(name)).unwrap().len()).sum();
    assert!(kept < 2 * 1024 * 1024, "{kept} bytes of 11 million were kept");
}

/// A child with so many bytes, which waits until it is ended.
const CHILDREN: &str = "
    child() { x=$(head -c 60000000 /dev/zero | tr '\\0' x); echo > full.$1; while :; do sleep 1; done; }
    for number in 0 1 2 3 4 5 6 7 8 9; do child $number & done
    wait";

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_memory_of_all_children_counts_together() {
    // Each alone may have as much.
    let bench = Bench::new(CHILDREN);
    let shown = bench.run("memory_max = \"256 MiB\"").await;
    let Ended::Exceeded(excess @ Excess::Memory { found, allowed: 268_435_456 }) = shown.ended else {
        panic!("{:?}: {}", shown.ended, shown.log)
    };
    assert!(found > 268_435_456, "{excess}");
    assert!(excess.to_string().contains("memory_max"), "{excess}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_number_of_processes_is_limited() {
    let many = "for number in 0 1 2 3 4 5 6 7 8 9; do sleep 1000 & done; wait";
    let shown = Bench::new(many).run("processes_max = 8").await;
    assert!(matches!(shown.ended, Ended::Exceeded(Excess::Processes { allowed: 8, .. })), "{:?}", shown.ended);
    let shown = Bench::new("sleep 0 & wait").run("processes_max = 2").await;
    assert_eq!(code(&shown.ended), Some(0), "{}", shown.log);
}

#[tokio::test]
async fn all_files_count_together() {
    let files = "mkdir state; n=0; while [ $n -lt 100 ]; do head -c 4000000 /dev/zero > state/$n; n=$((n+1)); done";
    for rest in ["", "; while :; do sleep 1; done"] {
        let bench = Bench::new(&(files.to_owned() + rest));
        let shown = bench.run("file_max = \"16 MiB\"\ndisk_max = \"64 MiB\"").await;
        let Ended::Exceeded(excess) = shown.ended else { panic!("{:?}", shown.ended) };
        assert!(matches!(excess, Excess::Disk { allowed: 67_108_864, .. }), "{excess}");
    }
}

/// Nothing but the program itself can do that.
#[tokio::test]
async fn children_end_with_the_program_when_it_has_killed_its_watcher() {
    let script = "
        (while :; do :; done) > /dev/null 2>&1 & echo $! > child
        for process in $(ps -e -o pid= -o pgid= | awk -v group=$$ '$2 == group { print $1 }'); do
            test $process = $$ || test $process = $(cat child) || kill -KILL $process 2> /dev/null
        done
        echo done";
    let bench = Bench::new(script);
    let shown = bench.run("").await;
    assert_eq!(code(&shown.ended), Some(0), "{}", shown.log);
    until_gone(bench.process("child")).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_program_is_bound_to_as_many_processors_as_it_may_use() {
    let list = async |processors: &[usize], section: &str| {
        let mut bench = Bench::new("grep Cpus_allowed_list /proc/self/status | cut -f2");
        bench.processors = processors.to_vec();
        bench.run(section).await.log
    };
    let whole = list(&[], "").await;
    let order = crate::node::external::processors::Processors::default().order();
    assert_eq!(list(&order, "cpus = 1").await, format!("{}\n", order[0]), "of {whole}");
    assert_eq!(list(&order, "cpus = 1024").await, whole);
}
