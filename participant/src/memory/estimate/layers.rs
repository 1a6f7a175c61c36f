//! What the layers of a network hold in a pass.

use fedledger_federation::architecture::{Architecture, ConvolutionLayer, ImageShape};

use super::{VALUE_BYTES, floats, sum};

/// Copies of the largest layer's values while its gradient is computed: the one that comes in, the one behind the rectified
/// linear unit, the one that goes out, the zeros that the numeric library adds it to, and their sum; and of a residual block
/// the one that waits for its other branch.
const GRADIENT_COPIES: u64 = 6;

/// Most vectors' worth of values that a row of a laid-out factor is filled up to.
const LANES_MAX: u64 = 16;

/// Most rows of a factor of a linear layer that are laid out at a time.
const DEPTH_TOGETHER: u64 = 512;

/// Copies of a convolution's filters while their gradient is computed: by place, laid out for the image's gradient, and their
/// own gradient; and room that other layers' have left where none of them fits in.
const FILTER_COPIES: u64 = 5;

/// Copies of one image of a convolution's output: before pooling or its gradient, and that laid out.
const OUTPUT_COPIES: u64 = 2;

/// Copies of one padded image: itself and its gradient.
const PADDED_COPIES: u64 = 2;

/// The layers of an architecture by what they hold; all sums saturate.
pub(super) struct Layers {
    /// Bytes of each tensor that a pass keeps for each row.
    kept: Vec<u64>,
    /// Bytes of what each layer lays out of its weights.
    in_order: Vec<u64>,
    /// Bytes that each convolution takes for one image at a time.
    image: Vec<u64>,
}

impl Layers {
    pub(super) fn of(architecture: &Architecture) -> Self {
        let mut layers = Self { kept: Vec::new(), in_order: Vec::new(), image: Vec::new() };
        // Records of one channel are used where they lie in the batch; others are put into another order first.
        if let Some(image) = architecture.image().filter(|image| image.channels > 1) {
            layers.kept.push(floats(values(image)));
        }
        for layer in architecture.convolutions() {
            let pooled = values(layer.output().pooled());
            // And a byte for each value: which one of four it was.
            layers.kept.push(floats(pooled).saturating_add(pooled));
            layers.add_scratch(&layer);
        }
        if let Some(last) = architecture.convolutions().last() {
            layers.kept.push(floats(values(last.output().pooled())));
        }
        layers.add_residual(architecture);
        for layer in architecture.layers() {
            let (inputs, outputs) = (u64::from(layer.inputs), u64::from(layer.outputs));
            layers.kept.push(floats(outputs));
            let forward = inputs.min(DEPTH_TOGETHER).saturating_mul(filled_up(outputs));
            let backward = outputs.min(DEPTH_TOGETHER).saturating_mul(filled_up(inputs));
            layers.in_order.push(floats(forward.max(backward)));
        }
        layers
    }

    /// The convolutions of a residual network, each with the normalisation of what it gives, and the sums.
    fn add_residual(&mut self, architecture: &Architecture) {
        let Some(stem) = architecture.stem() else { return };
        self.add_normalized(&stem);
        for block in architecture.residual_blocks() {
            self.add_normalized(&block.first);
            self.add_normalized(&block.second);
            block.shortcut.iter().for_each(|shortcut| self.add_normalized(shortcut));
            self.kept.push(floats(values(block.second.output())));
        }
        // The mean of each channel.
        self.kept.push(floats(architecture.layers().first().map_or(0, |layer| layer.inputs.into())));
    }

    fn add_normalized(&mut self, layer: &ConvolutionLayer) {
        let output = floats(values(layer.output()));
        self.kept.extend([output, output]);
        self.add_scratch(layer);
    }

    fn add_scratch(&mut self, layer: &ConvolutionLayer) {
        let (output, filters) = (layer.output(), u64::from(layer.filters));
        let in_order = layer.fan_in().saturating_mul(filled_up(filters));
        let by_filter = filters.saturating_mul(filled_up(layer.fan_in()));
        self.in_order.push(floats(in_order.max(by_filter)).saturating_mul(FILTER_COPIES));
        let places = u64::from(output.height).saturating_mul(output.width.into());
        let of_output = floats(places.saturating_mul(filled_up(filters))).saturating_mul(OUTPUT_COPIES);
        let [height, width] = [layer.input.height, layer.input.width]
            .map(|side| u64::from(side).saturating_add(2 * u64::from(layer.padding)));
        let padded = height.saturating_mul(width).saturating_mul(layer.input.channels.into());
        self.image.push(of_output.saturating_add(floats(padded).saturating_mul(PADDED_COPIES)));
    }

    /// Bytes that a pass without gradients keeps for each row.
    pub(super) fn kept_bytes(&self) -> u64 {
        sum(self.kept.iter().copied())
    }

    /// Bytes that a pass with gradients takes for each row.
    pub(super) fn training_bytes(&self) -> u64 {
        let largest = self.kept.iter().copied().max().unwrap_or(VALUE_BYTES);
        self.kept_bytes().saturating_add(largest.saturating_mul(GRADIENT_COPIES))
    }

    /// Bytes of the weights of the layer that lays out most of them.
    pub(super) fn weights_in_order(&self) -> u64 {
        self.in_order.iter().copied().max().unwrap_or(0)
    }

    /// Bytes that the convolution that takes most takes for one image.
    pub(super) fn bytes_of_an_image(&self) -> u64 {
        self.image.iter().copied().max().unwrap_or(0)
    }
}

fn values(image: ImageShape) -> u64 {
    [image.height, image.width]
        .into_iter()
        .fold(image.channels.into(), |values, side| values.saturating_mul(side.into()))
}

const fn filled_up(columns: u64) -> u64 {
    columns.div_ceil(LANES_MAX).saturating_mul(LANES_MAX)
}
