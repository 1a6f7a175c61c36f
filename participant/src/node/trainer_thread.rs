//! Threads that train and evaluate.
//!
//! Each node computes on one thread at a time, so that several nodes on one machine have equal shares of its cores, however
//! many plans each carries out. These threads give way to everything else: to the connections of this and other nodes, to
//! replicas, and to what else a hospital runs on the machine.

use std::thread;

use tokio::sync::oneshot;

/// By how much the priority of these threads, and of programs that train in their place, is lower than that of the process
/// (`nice`): about a third of the processor's time beside others that want it, and all of it otherwise.
pub const NICENESS: i32 = 5;

/// Runs `work` on such a thread, and gives its result; none if it could not be started or did not end well.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (done, result) = oneshot::channel();
    let started = thread::Builder::new().name("trainer".to_owned()).spawn(move || {
        give_way();
        // Who asked may have gone away.
        done.send(work()).ok();
    });
    match started {
        Ok(_) => result.await.ok(),
        Err(error) => {
            tracing::error!(%error, "no thread can be started to train on");
            None
        }
    }
}

/// Lowers the priority of this thread and of those that it starts. On Linux the niceness of a process without a number is
/// that of the calling thread; elsewhere it is that of the whole process, which must stay as it is.
#[cfg(target_os = "linux")]
fn give_way() {
    use rustix::process::{getpriority_process, setpriority_process};
    let lowered = getpriority_process(None).and_then(|own| setpriority_process(None, own.saturating_add(NICENESS)));
    if let Err(error) = lowered {
        tracing::debug!(%error, "the training goes on with the priority of the process");
    }
}

#[cfg(not(target_os = "linux"))]
fn give_way() {
    tracing::debug!(NICENESS, "threads have no priority of their own here");
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::process::getpriority_process;

    use super::*;

    #[tokio::test]
    async fn what_is_trained_gives_way_and_nothing_else_does() {
        let own = getpriority_process(None).unwrap();
        let niceness = || getpriority_process(None).unwrap();
        let (trainer, below) = run(move || (niceness(), thread::spawn(niceness).join().unwrap())).await.unwrap();
        assert_eq!((trainer, below), (own + NICENESS, own + NICENESS), "threads of the trainer are its like");
        assert_eq!(getpriority_process(None).unwrap(), own, "the node itself stays as it is");
        assert_eq!(thread::spawn(niceness).join().unwrap(), own);
    }

    #[tokio::test]
    async fn work_that_panics_has_no_result() {
        assert_eq!(run(|| -> u8 { panic!("as in a library that has a defect") }).await, None);
    }
}
