//! When a step is recorded, and when it is repeated.

use super::{Recipe, Trainer, ahead::Ahead, recipe::Recordable, recorded::Recorded};
use crate::{error::Result, kernels::step::AdamNumbers};

/// Steps before one is recorded: kernels are compiled in them, and moments and averages begin.
const BEFORE: usize = 2;

/// How often a step is recorded at most: again after one with fewer examples, as where one is broken, or of
/// other sizes.
const TRIES: usize = 32;

/// The step that is recorded, where steps are.
pub(super) struct Recording<'r, R: Recipe> {
    recipe: Option<&'r dyn Recordable<Model = R::Model, Example = R::Example>>,
    before: usize,
    tries: usize,
    recorded: Option<Recorded<'r>>,
}

impl<'r, R: Recipe> Recording<'r, R> {
    pub(super) fn new(trainer: &Trainer<R>, recipe: &'r R) -> Self {
        let recipe = trainer.recorder().and_then(|_| recipe.recordable());
        Self {
            recipe,
            before: BEFORE,
            tries: TRIES,
            recorded: None,
        }
    }

    /// Losses and length of the gradient by the recorded step; none if the step is to be done as others
    /// are.
    ///
    /// # Errors
    /// What the recipe gives, and what is not finite.
    pub(super) fn pass(
        &mut self,
        trainer: &Trainer<R>,
        examples: &[R::Example],
        ahead: &Ahead<R::Example>,
    ) -> Result<Option<(Vec<f32>, f64)>> {
        let (Some(recipe), Some(device)) = (self.recipe, trainer.recorder()) else {
            return Ok(None);
        };
        if self.before > 0 || examples.len() < trainer.batch() {
            self.before = self.before.saturating_sub(1);
            self.recorded = None;
            return Ok(None);
        }
        let (model, all) = (trainer.model(), examples.iter().collect::<Vec<_>>());
        let inputs = recipe.inputs(model, &all)?;
        if self.recorded.as_ref().is_some_and(|r| !r.fits(&inputs)) {
            self.recorded = None;
        }
        if self.recorded.is_none() && self.tries > 0 {
            self.tries -= 1;
            // Another thread's launches would be recorded, or its memory taken for the record's.
            let _still = ahead.pause();
            let (optimizer, rows) = (trainer.optimizer(), examples.len());
            let inputs = inputs.clone();
            self.recorded = Recorded::new(recipe, model, optimizer, inputs, rows, device)?;
            if self.recorded.is_none() {
                self.tries = 0;
            }
        }
        match &mut self.recorded {
            Some(recorded) => recorded.pass(inputs).map(Some),
            None => Ok(None),
        }
    }

    /// Whether the last step was repeated.
    pub(super) fn is_on(&self) -> bool {
        self.recorded.is_some()
    }

    /// Changes the parameters by the gradient that [`pass`](Self::pass) found.
    pub(super) fn update(&mut self, numbers: &AdamNumbers) {
        if let Some(recorded) = &mut self.recorded {
            recorded.update(numbers);
        }
    }
}
