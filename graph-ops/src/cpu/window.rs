//! Sliding windows: output sizes and padding, as TensorFlow's `GetWindowedOutputSizeVerbose` has them.

/// How an image is padded before windows slide over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// Only windows that lie wholly inside.
    Valid,
    /// As many windows as `ceil(input / stride)`; an odd pixel of padding goes after.
    Same,
    /// Given, before and after.
    Explicit { before: usize, after: usize },
}

/// One spatial dimension of a windowed operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Input pixels.
    pub input: usize,
    /// Taps of the window.
    pub size: usize,
    /// Pixels from one window to the next.
    pub stride: usize,
    /// Pixels from one tap to the next.
    pub dilation: usize,
    /// Pixels of padding before the input.
    pub before: usize,
    /// Pixels of padding after the input that some window reaches.
    pub after: usize,
    /// Number of windows.
    pub output: usize,
}

impl Window {
    /// Works out the output size and the padding; `None` where TensorFlow refuses: a zero size, stride or dilation, or an
    /// output size below zero.
    ///
    /// `Valid`: `ceil((input - effective + 1) / stride)` with `effective = (size - 1) * dilation + 1`.
    /// `Same`: `ceil(input / stride)`, padding `max(0, (output - 1) * stride + effective - input)`, the smaller half before.
    pub fn new(input: usize, size: usize, stride: usize, dilation: usize, padding: Padding) -> Option<Self> {
        if size == 0 || stride == 0 || dilation == 0 {
            return None;
        }
        let effective = (size - 1).checked_mul(dilation)?.checked_add(1)?;
        // TensorFlow divides signed numbers, rounding towards zero: a deficit under one stride still gives an output of zero.
        let fitting = |padded: usize| match (padded + stride).checked_sub(effective) {
            Some(span) => Some(span / stride),
            None => (effective - padded - stride < stride).then_some(0),
        };
        let (output, before, after) = match padding {
            Padding::Valid => (fitting(input)?, 0, 0),
            Padding::Explicit { before, after } => {
                (fitting(input.checked_add(before)?.checked_add(after)?)?, before, after)
            }
            Padding::Same => {
                let output = input.div_ceil(stride);
                let needed = (output.saturating_sub(1) * stride + effective).saturating_sub(input);
                (output, needed / 2, needed - needed / 2)
            }
        };
        Some(Self {
            input,
            size,
            stride,
            dilation,
            before,
            after,
            output,
        })
    }

    /// Pixels the window spans.
    pub fn effective(&self) -> usize {
        (self.size - 1) * self.dilation + 1
    }

    /// Padded pixels that windows reach: from the first pixel of padding to the last tap of the last window.
    pub fn reach(&self) -> usize {
        if self.output == 0 {
            0
        } else {
            (self.output - 1) * self.stride + self.effective()
        }
    }

    /// Whether no window reaches outside the input.
    pub fn inside(&self) -> bool {
        self.before == 0 && self.reach() <= self.input
    }

    /// The input pixel of tap `tap` of window `index`, if it is inside.
    #[inline(always)]
    pub fn place(&self, index: usize, tap: usize) -> Option<usize> {
        let place = (index * self.stride + tap * self.dilation).checked_sub(self.before)?;
        (place < self.input).then_some(place)
    }

    /// The input pixels that window `index` covers, without the padding; for dilation 1.
    #[inline(always)]
    pub fn pixels(&self, index: usize) -> std::ops::Range<usize> {
        let start = index * self.stride;
        let first = start.saturating_sub(self.before).min(self.input);
        let last = (start + self.size).saturating_sub(self.before).min(self.input);
        first..last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_padding_are_tensorflows() {
        // (input, size, stride, dilation, padding) -> (output, before, after)
        let same = Padding::Same;
        let valid = Padding::Valid;
        for (input, size, stride, dilation, padding, expected) in [
            (28, 5, 1, 1, valid, (24, 0, 0)),
            (24, 2, 2, 1, valid, (12, 0, 0)),
            (25, 2, 2, 1, valid, (12, 0, 0)),
            (5, 2, 2, 1, same, (3, 0, 1)),
            (5, 3, 2, 1, same, (3, 1, 1)),
            (6, 3, 2, 1, same, (3, 0, 1)),
            (7, 2, 4, 1, same, (2, 0, 0)),
            (7, 3, 1, 2, same, (7, 2, 2)),
            (7, 3, 1, 2, valid, (3, 0, 0)),
            (4, 3, 2, 1, Padding::Explicit { before: 1, after: 2 }, (3, 1, 2)),
            (2, 3, 1, 1, valid, (0, 0, 0)),
            (0, 3, 2, 1, same, (0, 1, 2)),
        ] {
            let w = Window::new(input, size, stride, dilation, padding).unwrap();
            assert_eq!(
                (w.output, w.before, w.after),
                expected,
                "{input} {size} {stride} {dilation} {padding:?}"
            );
        }
        assert!(Window::new(1, 5, 1, 1, valid).is_none());
        assert_eq!(Window::new(1, 9, 5, 1, valid).unwrap().output, 0);
        assert!(Window::new(5, 0, 1, 1, valid).is_none());
    }
}
