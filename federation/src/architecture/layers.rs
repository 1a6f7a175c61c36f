//! The layers of each architecture and the shapes of what goes through them.

use super::{Architecture, BLOCKS_MAX};

/// Height and width of the filters of a residual network.
const RESIDUAL_KERNEL: u32 = 3;

/// The largest number of groups of a group normalisation.
const GROUPS_MAX: u32 = 8;

/// Values that make an image, channel after channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageShape {
    /// Values at each place.
    pub channels: u32,
    /// Rows.
    pub height: u32,
    /// Places in a row.
    pub width: u32,
}

/// One linear layer: `inputs` values to `outputs` values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinearLayer {
    /// Values that go in.
    pub inputs: u32,
    /// Values that come out.
    pub outputs: u32,
}

/// One convolution with square filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvolutionLayer {
    /// What goes in.
    pub input: ImageShape,
    /// Channels that come out.
    pub filters: u32,
    /// Height and width of a filter.
    pub kernel: u32,
    /// Places from one application of the filters to the next.
    pub stride: u32,
    /// Zeros that are added at each border.
    pub padding: u32,
}

/// One block of a residual network: two convolutions, each normalised, with rectified linear units between them; what went
/// in is added, and rectified linear units follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResidualBlock {
    /// What the names of its parameters begin with, without the dot behind it.
    pub name: String,
    /// The first convolution; it halves height and width where the block begins a stage that does.
    pub first: ConvolutionLayer,
    /// The second convolution.
    pub second: ConvolutionLayer,
    /// The 1 x 1 convolution, normalised, that gives what went in the shape of what comes out; none where it has that shape.
    pub shortcut: Option<ConvolutionLayer>,
}

impl ImageShape {
    /// Channels times height times width; none if that is too large for 32 bits.
    pub fn values(self) -> Option<u32> {
        self.channels.checked_mul(self.height)?.checked_mul(self.width)
    }

    /// What 2 x 2 max pooling makes of it; a last odd row or column is left out.
    #[must_use]
    pub const fn pooled(self) -> Self {
        Self { channels: self.channels, height: self.height / 2, width: self.width / 2 }
    }
}

impl ConvolutionLayer {
    /// What comes out; without rows where the filters are larger than what goes in.
    pub const fn output(&self) -> ImageShape {
        ImageShape {
            channels: self.filters,
            height: places(self.input.height, self.kernel, self.stride, self.padding),
            width: places(self.input.width, self.kernel, self.stride, self.padding),
        }
    }

    /// Values that one value of the output is computed from.
    pub fn fan_in(&self) -> u64 {
        u64::from(self.input.channels).saturating_mul(u64::from(self.kernel)).saturating_mul(u64::from(self.kernel))
    }
}

/// Places of a filter along one side.
const fn places(side: u32, kernel: u32, stride: u32, padding: u32) -> u32 {
    let padded = side.saturating_add(padding.saturating_mul(2));
    if kernel == 0 || stride == 0 || padded < kernel { 0 } else { (padded - kernel) / stride + 1 }
}

/// Groups of the normalisation of so many channels: as many as the greatest common divisor with eight.
pub const fn groups(channels: u32) -> u32 {
    let mut groups = GROUPS_MAX;
    while !channels.is_multiple_of(groups) {
        groups /= 2;
    }
    groups
}

impl Architecture {
    /// The linear layers, input to output; of a network for images those behind the convolutions; none of a custom
    /// architecture.
    pub fn layers(&self) -> Vec<LinearLayer> {
        let (inputs, hidden): (u32, &[u32]) = match self {
            Self::LogisticRegression { features, .. } => (*features, &[]),
            Self::MultilayerPerceptron { features, hidden, .. } => (*features, hidden),
            Self::Convolutional { hidden, .. } => {
                let pooled = self.convolutions().last().map(|layer| layer.output().pooled());
                (pooled.and_then(ImageShape::values).unwrap_or(0), hidden)
            }
            Self::Residual { widths, .. } => (widths.last().copied().unwrap_or(0), &[]),
            Self::Custom { .. } => return Vec::new(),
        };
        let widths_in = std::iter::once(inputs).chain(hidden.iter().copied());
        let widths_out = hidden.iter().copied().chain(std::iter::once(self.outputs()));
        widths_in.zip(widths_out).map(|(inputs, outputs)| LinearLayer { inputs, outputs }).collect()
    }

    /// The convolutions of a convolutional network, input to output, each followed by rectified linear units and 2 x 2 max
    /// pooling; none of others.
    pub fn convolutions(&self) -> Vec<ConvolutionLayer> {
        let Self::Convolutional { channels, height, width, convolutions, kernel, .. } = self else {
            return Vec::new();
        };
        let mut input = ImageShape { channels: *channels, height: *height, width: *width };
        let layer = |&filters: &u32| {
            let layer = ConvolutionLayer { input, filters, kernel: *kernel, stride: 1, padding: 0 };
            input = layer.output().pooled();
            layer
        };
        convolutions.iter().map(layer).collect()
    }

    /// The first convolution of a residual network, which keeps height and width; none of others.
    pub fn stem(&self) -> Option<ConvolutionLayer> {
        let Self::Residual { widths, .. } = self else { return None };
        Some(same_size(self.image()?, widths.first().copied().unwrap_or(0)))
    }

    /// The blocks of a residual network, input to output; none of others.
    pub fn residual_blocks(&self) -> Vec<ResidualBlock> {
        let (Self::Residual { widths, blocks, .. }, Some(stem)) = (self, self.stem()) else { return Vec::new() };
        let mut input = stem.output();
        let mut listed = Vec::new();
        for (stage, &filters) in widths.iter().enumerate() {
            for block in 0..(*blocks).min(BLOCKS_MAX) {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                let first = ConvolutionLayer { stride, ..same_size(input, filters) };
                let second = same_size(first.output(), filters);
                let shortcut = (input != second.output()).then_some(ConvolutionLayer {
                    input,
                    filters,
                    kernel: 1,
                    stride,
                    padding: 0,
                });
                listed.push(ResidualBlock { name: format!("stage{stage}.block{block}"), first, second, shortcut });
                input = second.output();
            }
        }
        listed
    }
}

/// A convolution of a residual network that keeps height and width.
const fn same_size(input: ImageShape, filters: u32) -> ConvolutionLayer {
    ConvolutionLayer { input, filters, kernel: RESIDUAL_KERNEL, stride: 1, padding: RESIDUAL_KERNEL / 2 }
}
