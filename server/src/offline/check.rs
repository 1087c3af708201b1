//! `gpulease journal check`: how a journal is, and what to do about it.

use std::path::Path;

use super::{
    Told, account::Account, args::Place, configuration, error::OfflineError, rehearsal, report,
    source,
};

/// Looks at the journal and tells.
pub(super) fn run(place: &Place, json: bool) -> Result<Told, OfflineError> {
    let data = configuration(place)?.data;
    let remains = source::of_directory(&data)?;
    let mut account = Account::of(&remains)?;
    let readable = account.is_whole();
    if let Some(why) = rehearsal::refusal(&data)? {
        account.problems.push(format!("a coordinator does not start on it: {why}"));
    }
    let text = if json {
        format!("{}\n", report::json(&data, &account))
    } else {
        told(&data, &account, readable)
    };
    Ok(Told { text, whole: account.is_whole() })
}

fn told(data: &Path, account: &Account, readable: bool) -> String {
    let mut text = report::lines(&report::of_account(data, account));
    if account.is_whole() {
        return text + "It is whole, and a coordinator starts on it.\n";
    }
    text += &report::list("It is damaged:", &account.problems);
    if let Some(lost) = report::lost(account) {
        text += &format!("Lost here: {lost}.\n");
    } else if readable {
        text += "Every batch is readable all the same: an export and an import lose nothing.\n";
    }
    let (data, salvage) = (data.display(), if readable { "" } else { " --salvage" });
    text + &format!(
        "Next: carry what is left, or a copy of the directory that has more, into a new one:\n  \
         gpulease journal export --data {data} --to journal.export\n  \
         mv {data} {data}.damaged\n  \
         gpulease journal import --from journal.export --data {data}{salvage}\n"
    )
}
