//! The verdicts as tables in Markdown.

use std::collections::HashMap;

use super::{
    Judged, Row, Task,
    demo::{judge::Verdict, parse::parse},
    support::wilson,
};

/// Each row's shares, of each thing that is judged and by how many solids there are.
pub(super) fn tables(rows: &[Row], verdicts: &HashMap<Task, Judged>) -> String {
    format!(
        "{}\n{}",
        by_thing(rows, verdicts),
        by_solids(rows, verdicts)
    )
}

/// Both splits with their names.
const SPLITS: [(bool, &str); 2] = [(false, "seen"), (true, "held out")];

fn by_thing(rows: &[Row], verdicts: &HashMap<Task, Judged>) -> String {
    let mut lines = vec![
        "| row | captions | pictures | object | colour | size | relation | all |".to_owned(),
        "|---|---|---|---|---|---|---|---|".to_owned(),
    ];
    for row in rows {
        for (is_held_out, kind) in SPLITS {
            let of_row: Vec<Verdict> = of_row(verdicts, *row, is_held_out)
                .map(|judged| judged.verdict)
                .collect();
            if of_row.is_empty() {
                continue;
            }
            let share = |holds: fn(&Verdict) -> bool| {
                let (count, of) = (of_row.iter().filter(|v| holds(v)).count(), of_row.len());
                let (low, high) = wilson(count as f64, of as f64);
                let percent = |x: f64| 100.0 * x;
                let share = percent(count as f64 / of as f64);
                format!("{share:.1} ({:.1} to {:.1})", percent(low), percent(high))
            };
            let shares = [
                share(|v| v.object),
                share(|v| v.colour),
                share(|v| v.size),
                share(|v| v.relation),
                share(|v| v.all),
            ];
            let (name, count) = (row.name(), of_row.len());
            lines.push(format!(
                "| {name} | {kind} | {count} | {} |",
                shares.join(" | ")
            ));
        }
    }
    lines.join("\n") + "\n"
}

/// Each row's shares of captions of which all holds, by how many solids they name.
fn by_solids(rows: &[Row], verdicts: &HashMap<Task, Judged>) -> String {
    let mut lines = vec![
        "| all-together, by solids | captions | 1 | 2 | 3 |".to_owned(),
        "|---|---|---|---|---|".to_owned(),
    ];
    for row in rows {
        for (is_held_out, kind) in SPLITS {
            let mut counts = [[0_usize; 2]; 3];
            for judged in of_row(verdicts, *row, is_held_out) {
                let solids = parse(&judged.caption).map_or(0, |request| request.objects.len());
                if let Some([right, of]) = solids.checked_sub(1).and_then(|i| counts.get_mut(i)) {
                    *right += usize::from(judged.verdict.all);
                    *of += 1;
                }
            }
            if counts.iter().all(|[_, of]| *of == 0) {
                continue;
            }
            let shares = counts.map(|[right, of]| match of {
                0 => "none".to_owned(),
                _ => format!("{:.0} % of {of}", 100.0 * right as f64 / of as f64),
            });
            lines.push(format!(
                "| {} | {kind} | {} |",
                row.name(),
                shares.join(" | ")
            ));
        }
    }
    lines.join("\n") + "\n"
}

fn of_row(
    verdicts: &HashMap<Task, Judged>,
    row: Row,
    is_held_out: bool,
) -> impl Iterator<Item = &Judged> {
    let fits = move |task: &Task| task.row == row && task.is_held_out == is_held_out;
    verdicts.values().filter(move |judged| fits(&judged.task))
}
