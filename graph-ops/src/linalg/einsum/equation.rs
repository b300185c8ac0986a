//! Equations of index notation: `"ij,jk->ik"`, `"...ii->...i"`.

use graph_core::{Dim, Error, PartialShape, Result};

/// Where an operand has the axes that the equation does not name.
pub(in super::super) const ELLIPSIS: &str = "...";

/// The names of an operand's axes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Subscripts {
    /// One character an axis.
    pub(super) labels: Vec<char>,
    /// How many of the labels stand before the ellipsis, if there is one.
    pub(super) ellipsis: Option<usize>,
}

impl Subscripts {
    fn parse(text: &str, equation: &str) -> Result<Self> {
        let wrong = || {
            Error::invalid_argument(format!("the subscripts '{text}' have periods that are no ellipsis"))
                .expected("at most one ellipsis (...) in the subscripts of an operand")
                .got(equation)
        };
        let (before, after) = match text.split_once(ELLIPSIS) {
            Some((before, after)) => (before, Some(after)),
            None => (text, None),
        };
        if before.contains('.') || after.is_some_and(|after| after.contains('.')) {
            return Err(wrong());
        }
        let mut labels: Vec<char> = before.chars().collect();
        let ellipsis = after.map(|after| {
            let before = labels.len();
            labels.extend(after.chars());
            before
        });
        Ok(Self { labels, ellipsis })
    }

    /// The axis that a label names: the label itself, or the number of an axis of the ellipsis, counted from its end.
    pub(super) fn axes(&self, rank: usize) -> Option<Vec<Axis>> {
        let named = |label: &char| Axis::Named(*label);
        match self.ellipsis {
            None => (self.labels.len() == rank).then(|| self.labels.iter().map(named).collect()),
            Some(before) => {
                let hidden = rank.checked_sub(self.labels.len())?;
                let mut axes: Vec<Axis> = self.labels[..before].iter().map(named).collect();
                axes.extend((0..hidden).rev().map(Axis::Hidden));
                axes.extend(self.labels[before..].iter().map(named));
                Some(axes)
            }
        }
    }
}

/// What an axis is called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Axis {
    /// By a character.
    Named(char),
    /// By its place in an ellipsis, the last axis being 0.
    Hidden(usize),
}

/// A parsed equation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Equation {
    pub(super) inputs: Vec<Subscripts>,
    pub(super) output: Subscripts,
}

impl Equation {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let invalid = |message: String| Err(Error::invalid_argument(message).got(format!("'{text}'")));
        let sides: Vec<&str> = text.split("->").collect();
        let &[left, right] = sides.as_slice() else {
            return invalid("expecting exactly one '->' in the equation".to_owned());
        };
        let inputs: Vec<Subscripts> = left
            .split(',')
            .map(|part| Subscripts::parse(part, text))
            .collect::<Result<_>>()?;
        if inputs.len() > 2 {
            return invalid(format!(
                "expecting the subscripts of 1 or 2 operands, not of {}",
                inputs.len()
            ));
        }
        let output = Subscripts::parse(right, text)?;
        let known = |label: &char| inputs.iter().any(|input| input.labels.contains(label));
        if let Some(label) = output.labels.iter().find(|label| !known(label)) {
            return invalid(format!("the result has the label '{label}', which no operand has"));
        }
        Ok(Self { inputs, output })
    }

    /// The shape of the result, as far as it is known.
    pub(super) fn infer(&self, shapes: &[PartialShape]) -> Result<PartialShape> {
        if shapes.len() != self.inputs.len() {
            return Err(Error::invalid_argument("the equation has another number of operands")
                .expected(self.inputs.len())
                .got(shapes.len()));
        }
        let mut named: Vec<(char, Dim)> = Vec::new();
        let mut hidden: Option<PartialShape> = Some(PartialShape::scalar());
        for (subscripts, shape) in self.inputs.iter().zip(shapes) {
            let Some(dims) = shape.dims() else {
                hidden = hidden.filter(|_| subscripts.ellipsis.is_none());
                continue;
            };
            let axes = subscripts.axes(dims.len()).ok_or_else(|| {
                Error::invalid_argument("the subscripts do not fit an operand's rank")
                    .expected(format!(
                        "{}rank {}",
                        if subscripts.ellipsis.is_some() { "at least " } else { "" },
                        subscripts.labels.len()
                    ))
                    .got(format!("shape {shape}"))
            })?;
            let mut own = Vec::new();
            for (axis, &dim) in axes.into_iter().zip(dims) {
                match axis {
                    Axis::Named(label) => note(&mut named, label, dim)?,
                    Axis::Hidden(_) => own.push(dim),
                }
            }
            if let Some(so_far) = &hidden {
                let own = PartialShape::from_dims(own);
                let together = so_far.broadcast(&own).ok_or_else(|| {
                    Error::invalid_argument(format!("the axes of the ellipsis do not fit: {so_far} vs. {own}"))
                })?;
                hidden = Some(together);
            }
        }
        let of = |label: &char| named.iter().find(|(name, _)| name == label).and_then(|(_, dim)| *dim);
        let dims: Vec<Dim> = self.output.labels.iter().map(of).collect();
        let Some(before) = self.output.ellipsis else {
            if hidden.is_some_and(|hidden| hidden.rank().is_some_and(|rank| rank > 0)) {
                return Err(Error::invalid_argument(
                    "the result has no ellipsis (...), but there are axes that the equation does not name",
                ));
            }
            return Ok(PartialShape::from_dims(dims));
        };
        let part = |dims: &[Dim]| PartialShape::from_dims(dims.iter().copied());
        Ok(match hidden {
            Some(hidden) => part(&dims[..before])
                .concatenate(&hidden)
                .concatenate(&part(&dims[before..])),
            None => PartialShape::unknown(),
        })
    }
}

/// Remembers the dimension of a label.
fn note(named: &mut Vec<(char, Dim)>, label: char, dim: Dim) -> Result<()> {
    let Some((_, known)) = named.iter_mut().find(|(name, _)| *name == label) else {
        named.push((label, dim));
        return Ok(());
    };
    match (*known, dim) {
        (Some(known), Some(dim)) if known != dim => Err(Error::invalid_argument(format!(
            "the axes labelled '{label}' have different dimensions"
        ))
        .expected(known)
        .got(dim)),
        (None, dim) => {
            *known = dim;
            Ok(())
        }
        _ => Ok(()),
    }
}
