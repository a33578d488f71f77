//! What training refuses, and how it ends when something is wrong.

use super::*;

#[test]
fn what_goes_wrong_is_named_and_the_last_checkpoint_stays() {
    let diverged = |points: Points, settings: TrainSettings| {
        let folder = tempfile::tempdir().unwrap();
        let mut trainer = trainer(settings, &[Device::flex()]);
        match trainer.run(Arc::new(points), folder.path(), keep_on) {
            Err(Error::Diverged {
                step,
                batch,
                checkpoint,
                ..
            }) => {
                assert_eq!(checkpoint, latest_checkpoint(folder.path()));
                assert!(checkpoint.is_some() && step > 0);
                batch
            }
            other => panic!("{other:?}"),
        }
    };
    let poisoned = Points {
        poisoned: Some(42),
        ..Points::default()
    };
    assert!(diverged(poisoned, settings(40)).contains("point 42"));
    let spike = TrainSettings {
        spike: Some(20.0),
        warm_up: 0,
        ..settings(40)
    };
    let huge = Points {
        huge: Some(17),
        ..Points::default()
    };
    assert!(diverged(huge, spike).contains("point 17"));
}

#[test]
fn broken_samples_are_counted_up_to_a_limit() {
    let run = |broken: usize, max_broken: usize| {
        let folder = tempfile::tempdir().unwrap();
        let settings = TrainSettings {
            max_broken,
            ..settings(40)
        };
        let mut trainer = trainer(settings, &[Device::flex()]);
        let points = Points {
            broken,
            ..Points::default()
        };
        let result = trainer.run(Arc::new(points), folder.path(), keep_on);
        (result, trainer.broken().len())
    };
    let (result, count) = run(5, 5);
    assert!(result.is_ok() && count == 5, "{result:?}");
    match run(5, 4).0 {
        Err(Error::Setting { name, expected, .. }) => {
            assert_eq!(name, "broken samples");
            assert!(expected.contains("at most 4"));
        }
        other => panic!("{other:?}"),
    }
    // Fewer than the limit, but there is nothing else.
    match run(100, 100).0 {
        Err(Error::Setting { value, .. }) => assert!(value.contains("all that there are")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_panic_in_a_sample_ends_the_run_with_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let points = Points {
        panics: true,
        ..Points::default()
    };
    let result =
        trainer(settings(3), &[Device::flex()]).run(Arc::new(points), folder.path(), keep_on);
    match result {
        Err(Error::Setting { name, .. }) => assert_eq!(name, "samples"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_run_goes_on_with_its_own_folder_and_samples() {
    let folder = tempfile::tempdir().unwrap();
    trained(settings(10), &[Device::flex()], folder.path());
    let refused = |mut trainer: Trainer<Product>, less: usize| {
        let points = Points {
            less,
            ..Points::default()
        };
        match trainer.run(Arc::new(points), folder.path(), keep_on) {
            Err(Error::Setting { name, .. }) => name,
            other => panic!("{other:?}"),
        }
    };
    let new = trainer(settings(20), &[Device::flex()]);
    assert_eq!(refused(new, 0), "the run's folder");
    let mut resumed = trainer(settings(20), &[Device::flex()]);
    resumed.resume(folder.path()).unwrap();
    assert_eq!(refused(resumed, 1), "samples");
    let rows = read_log(&folder.path().join("log.csv")).unwrap();
    assert_eq!(rows.len(), 10);
}

#[test]
fn another_seed_or_a_damaged_checkpoint_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    trained(settings(10), &[Device::flex()], folder.path());
    let mut other = trainer(
        TrainSettings {
            seed: 6,
            ..settings(20)
        },
        &[Device::flex()],
    );
    assert!(matches!(
        other.resume(folder.path()),
        Err(Error::Setting { .. })
    ));
    let newest = latest_checkpoint(folder.path()).unwrap();
    std::fs::write(newest.join("first/model.safetensors"), b"short").unwrap();
    let mut same = trainer(settings(20), &[Device::flex()]);
    assert!(matches!(
        same.resume(folder.path()),
        Err(Error::Data { reason, .. }) if reason.contains("the checkpoint before it")
    ));
    assert!(
        !trainer(settings(1), &[Device::flex()])
            .resume(Path::new("/nowhere"))
            .unwrap()
    );
}
