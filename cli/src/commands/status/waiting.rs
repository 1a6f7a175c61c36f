//! What a plan waits for, as people read it.

use fedledger_federation::progress::PlanProgress;

use crate::{context::Context, output::list};

/// Lines below that of the plan: what it waits for, of whom, how long, and whether it is stuck.
pub(super) fn text(context: &Context, progress: &PlanProgress) -> String {
    let mut text = format!("\n  waits for {}", progress.waiting_for);
    if !progress.names.is_empty() {
        let more = progress.name_count.saturating_sub(progress.names.len() as u64);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        text += &format!(" ({}{more})", list(&progress.names));
    }
    text += &progress.lasting_ms.map_or_else(String::new, |lasting_ms| format!(", for {}", duration(lasting_ms)));
    text += &progress.left_ms.map_or_else(String::new, |left_ms| format!(", at most {} more", duration(left_ms)));
    if let Some(cause) = &progress.cause {
        text += &format!("\n  {}: {cause}", context.output.bad("STUCK"));
    }
    text
}

/// A duration in its two largest units.
fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_told_in_two_units() {
        for (ms, text) in [(999, "0 s"), (59_999, "59 s"), (61_000, "1 min 1 s"), (7_260_000, "2 h 1 min")] {
            assert_eq!(duration(ms), text);
        }
    }
}
