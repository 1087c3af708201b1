//! `--watch`: the same answer again, whenever something happened.
//!
//! Promises: on a terminal the screen is redrawn in place, on every event (at most every `REDRAW_MIN`) and
//! each second, and a coordinator that goes away is said and waited for; elsewhere the answer is printed
//! again on events only.
//! Leaves to others: the answer.

use std::time::Duration;

use gpulease::{Client, EventBatch, EventStream};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_stream::StreamExt;

use crate::failure::{Exit, Failure};
use crate::options::Context;
use crate::output::Output;

/// The least time between two redraws: 5 a second look alive and cost a busy coordinator 5 small calls.
const REDRAW_MIN: Duration = Duration::from_millis(200);

/// The longest time between two redraws: times left are shown in seconds.
const REDRAW_MAX: Duration = Duration::from_secs(1);

/// How long an answer is waited for before the screen says that none comes; without a screen, the SDK's own
/// bounds decide.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Clears the screen; moves to the top; clears to the end of a line; clears what is below.
const CLEAR: &str = "\x1b[2J";
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// Shows `answer` again and again.
pub(crate) async fn redraw(
    context: &Context,
    client: &Client,
    mut answer: impl AsyncFnMut() -> Result<String, Failure>,
) -> Result<(), Failure> {
    let output = &context.output;
    let mut events = client.watch(None).await?;
    let mut ticks = interval(REDRAW_MAX);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    if output.stdout_is_terminal {
        output.raw(CLEAR)?;
    }
    let patience = if output.stdout_is_terminal { ANSWER_MAX } else { Duration::MAX };
    let mut shown = String::new();
    loop {
        let drawn = Instant::now();
        let away = match timeout(patience, answer()).await {
            Ok(Ok(text)) => {
                shown = text;
                false
            }
            Ok(Err(failure)) if !(output.stdout_is_terminal && is_away(&failure)) => {
                return Err(failure);
            }
            Ok(Err(_)) | Err(_) => true,
        };
        draw(output, &if away { with_notice(&shown, &context.endpoint) } else { shown.clone() })?;
        if output.stdout_is_terminal {
            tokio::select! {
                batch = next(&mut events) => match batch {
                    Err(failure) if !is_away(&failure) => return Err(failure),
                    _ => {}
                },
                _ = ticks.tick() => {}
            }
        } else {
            next(&mut events).await?;
        }
        sleep_until(drawn + REDRAW_MIN).await;
    }
}

fn is_away(failure: &Failure) -> bool {
    failure.is(Exit::Unreachable)
}

fn with_notice(shown: &str, endpoint: &str) -> String {
    format!("{endpoint} does not answer: waiting for it, this is how it was:\n\n{shown}")
}

/// The next batch that holds an event: bookmarks are passed over.
pub(crate) async fn next(events: &mut EventStream) -> Result<EventBatch, Failure> {
    loop {
        match events.next().await {
            Some(Ok(batch)) if batch.events.is_empty() => {}
            Some(Ok(batch)) => return Ok(batch),
            Some(Err(error)) => return Err(error.into()),
            None => return Err(Failure::other("the event stream ended: start again")),
        }
    }
}

fn draw(output: &Output, text: &str) -> Result<(), Failure> {
    match output.height() {
        Some(height) => output.raw(&screen(text, usize::from(height))),
        None => output.text(&format!("{text}\n\n")),
    }
}

/// The text as it is drawn over the screen before, cut to its height.
fn screen(text: &str, height: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    // The last line stays free, for the cursor.
    let room = height.saturating_sub(1).max(1);
    let mut drawn = String::from(HOME);
    let shown = if lines.len() > room { room.saturating_sub(1) } else { lines.len() };
    for line in &lines[..shown] {
        drawn += &format!("{line}{CLEAR_LINE}\n");
    }
    if shown < lines.len() {
        drawn += &format!("… {} more lines{CLEAR_LINE}\n", lines.len() - shown);
    }
    drawn + CLEAR_BELOW
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_is_cut_to_its_height() {
        let plain = |text: &str, height| {
            screen(text, height)
                .replace(HOME, "<")
                .replace(CLEAR_LINE, "")
                .replace(CLEAR_BELOW, ">")
        };
        assert_eq!(plain("a\nb\nc", 4), "<a\nb\nc\n>");
        assert_eq!(plain("a\nb\nc\nd", 4), "<a\nb\n… 2 more lines\n>");
        assert_eq!(plain("a\nb", 1), "<… 2 more lines\n>");
        assert_eq!(plain("", 4), "<>");
    }
}
