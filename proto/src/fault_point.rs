//! Points in the work of a node at which a test ends, suspends or slows down the process. A release cannot be told to.
//!
//! A test says by the variable `FAILPOINTS` (see the crate `fail`) what happens at which point: `NAME=return` ends the
//! process there, and with `NAME=return(FILE)` it obeys the order in that file, if there is one, once: `stop` suspends it,
//! a number makes it wait for so many milliseconds. So the test can choose the moment, and see that it has come.

use std::{fs, process, sync::Mutex, sync::PoisonError, thread, time::Duration};

use fail::fail_point;

/// How long the thread that suspends its process waits for that: the signal may reach another thread first.
const SUSPENDED_WITHIN: Duration = Duration::from_millis(100);

/// Held by the thread that obeys: of two orders at the same moment, each has its effect.
static OBEYING: Mutex<()> = Mutex::new(());

/// Does what the test says that watches this process, if one does and says anything about the point of this name.
pub fn fault_point(name: &str) {
    fail_point!(name, |file| match file {
        Some(file) => obey(name, &file),
        None => process::abort(),
    });
}

/// Takes an order out of its file and carries it out. What cannot be understood ends the process, so that it is noticed.
fn obey(name: &str, file: &str) {
    let obeying = OBEYING.lock().unwrap_or_else(PoisonError::into_inner);
    let Ok(order) = fs::read_to_string(file) else { return };
    // Only one process takes it, if several could.
    if fs::remove_file(file).is_err() {
        return;
    }
    tracing::warn!(point = name, order, "a test disturbs this process");
    match order.parse() {
        Ok(wait_ms) => {
            drop(obeying);
            thread::sleep(Duration::from_millis(wait_ms));
        }
        Err(_) if order == "stop" => suspend(),
        Err(_) => process::abort(),
    }
}

/// Suspends the process until it is told to go on (SIGCONT).
#[cfg(unix)]
fn suspend() {
    use rustix::process::{Signal, getpid, kill_process};

    match kill_process(getpid(), Signal::STOP) {
        Ok(()) => thread::sleep(SUSPENDED_WITHIN),
        Err(_) => process::abort(),
    }
}

/// There is no such signal.
#[cfg(not(unix))]
fn suspend() {
    process::abort();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_obeyed_once_and_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("va.training");
        let path = file.to_str().unwrap();
        obey("training", path);
        fs::write(&file, "0").unwrap();
        obey("training", path);
        assert!(!file.exists());
        obey("training", path);
    }

    #[test]
    fn a_point_of_which_nobody_says_anything_does_nothing() {
        fault_point("a point that is nowhere");
    }
}
