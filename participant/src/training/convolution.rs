//! Convolutions of images whose channels lie side by side.
//!
//! With `[rows, columns, channels]` in memory, what lies under one row of a filter is one contiguous run, so that a
//! convolution is a product whose left factor needs not be laid out: the runs of neighbouring places overlap in the image.
//! Nothing like the usual matrix of all patches (im2col) is written, and every value has a fixed order of sums.

mod operation;
mod pooling;

use fedledger_federation::architecture::ConvolutionLayer;
use pulp::{Simd, WithSimd};

use super::vector::{Matrix, Panel, Panels, TILE_ROWS, add_columns, add_rows, load, store, vectorized};

pub(super) use operation::{Convolution, PooledConvolution};

/// Sizes of a convolution; the image is counted with its padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Geometry {
    channels: usize,
    height: usize,
    width: usize,
    filters: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
    out_height: usize,
    out_width: usize,
}

impl Geometry {
    fn new(layer: &ConvolutionLayer) -> Self {
        let (input, output, padding) = (layer.input, layer.output(), layer.padding as usize);
        Self {
            channels: input.channels as usize,
            height: input.height as usize + 2 * padding,
            width: input.width as usize + 2 * padding,
            filters: layer.filters as usize,
            kernel: layer.kernel as usize,
            stride: layer.stride as usize,
            padding,
            out_height: output.height as usize,
            out_width: output.width as usize,
        }
    }

    /// Values of an image without its padding.
    const fn input_count(&self) -> usize {
        self.channels * (self.height - 2 * self.padding) * (self.width - 2 * self.padding)
    }

    const fn padded_count(&self) -> usize {
        self.channels * self.height * self.width
    }

    const fn output_count(&self) -> usize {
        self.filters * self.out_height * self.out_width
    }

    /// Values under one row of a filter.
    #[inline(always)]
    const fn run(&self) -> usize {
        self.kernel * self.channels
    }

    /// Values under a filter.
    #[inline(always)]
    const fn patch(&self) -> usize {
        self.kernel * self.run()
    }

    /// Where the run under row `line` of the filters begins for the place `x` in row `y` of the output.
    #[inline(always)]
    const fn start(&self, y: usize, x: usize, line: usize) -> usize {
        ((y * self.stride + line) * self.width + x * self.stride) * self.channels
    }

    /// The image within zeros; where no padding is asked for, the image as it is.
    fn pad<'a>(&self, image: &'a [f32], padded: &'a mut Vec<f32>) -> &'a [f32] {
        if self.padding == 0 {
            return image;
        }
        padded.clear();
        padded.resize(self.padded_count(), 0.0);
        let rows = padded.chunks_exact_mut(self.width * self.channels).skip(self.padding);
        for (padded, image) in rows.zip(image.chunks_exact(self.inner_row())) {
            let inner = padded.iter_mut().skip(self.padding * self.channels);
            inner.zip(image).for_each(|(padded, value)| *padded = *value);
        }
        padded
    }

    /// Takes the zeros away.
    fn unpad(&self, padded: &[f32], image: &mut [f32]) {
        let rows = padded.chunks_exact(self.width * self.channels).skip(self.padding);
        for (padded, image) in rows.zip(image.chunks_exact_mut(self.inner_row())) {
            let inner = padded.iter().skip(self.padding * self.channels);
            image.iter_mut().zip(inner).for_each(|(value, padded)| *value = *padded);
        }
    }

    /// Values in a row of an image without its padding.
    const fn inner_row(&self) -> usize {
        (self.width - 2 * self.padding) * self.channels
    }

    /// From `[filters, channels, kernel, kernel]` to `[filters, kernel, kernel, channels]`.
    fn by_patch(&self, weight: &[f32]) -> Vec<f32> {
        let (area, patch) = (self.kernel * self.kernel, self.patch().max(1));
        let mut ordered = vec![0.0; weight.len()];
        for (filter, ordered) in weight.chunks_exact(patch).zip(ordered.chunks_exact_mut(patch)) {
            for (channel, values) in filter.chunks_exact(area.max(1)).enumerate() {
                let places = ordered.iter_mut().skip(channel).step_by(self.channels.max(1));
                places.zip(values).for_each(|(place, value)| *place = *value);
            }
        }
        ordered
    }

    /// Adds gradients of `[kernel, kernel, channels, filters]` to those of `[filters, channels, kernel, kernel]`.
    fn add_by_filter(&self, by_patch: &[f32], sums: &mut [f32]) {
        let area = self.kernel * self.kernel;
        for (filter, sums) in sums.chunks_exact_mut(self.patch().max(1)).enumerate() {
            for (channel, sums) in sums.chunks_exact_mut(area.max(1)).enumerate() {
                let start = channel * self.filters + filter;
                let values = by_patch.iter().skip(start).step_by(self.channels * self.filters);
                sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
            }
        }
    }
}

/// One image in, one image out: each filter at each place.
struct Convolve<'a> {
    geometry: Geometry,
    /// `[patch, filters]`.
    weight: &'a Panels,
    /// One value for each filter, or none.
    bias: &'a [f32],
    image: &'a [f32],
    /// Is overwritten.
    output: &'a mut [f32],
}

impl WithSimd for Convolve<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        for panel in self.weight.iter() {
            match panel.vectors {
                3 => self.panel::<S, 3>(simd, panel),
                2 => self.panel::<S, 2>(simd, panel),
                _ => self.panel::<S, 1>(simd, panel),
            }
        }
    }
}

impl Convolve<'_> {
    #[inline(always)]
    fn panel<S: Simd, const V: usize>(&mut self, simd: S, panel: Panel<'_>) {
        let Self { geometry, bias, image, .. } = *self;
        let bias = load::<S, V>(simd, bias.get(panel.column..panel.column + panel.columns).unwrap_or_default());
        let row = geometry.out_width * geometry.filters;
        for (y, output) in self.output.chunks_exact_mut(row.max(1)).enumerate() {
            let mut x = 0;
            for output in output.chunks_mut(TILE_ROWS * geometry.filters) {
                if output.len() == TILE_ROWS * geometry.filters {
                    places::<S, TILE_ROWS, V>(simd, geometry, panel, bias, image, output, [y, x]);
                    x += TILE_ROWS;
                } else {
                    for output in output.chunks_mut(geometry.filters) {
                        places::<S, 1, V>(simd, geometry, panel, bias, image, output, [y, x]);
                        x += 1;
                    }
                }
            }
        }
    }
}

/// A few filters at `R` neighbouring places.
#[inline(always)]
fn places<S: Simd, const R: usize, const V: usize>(
    simd: S,
    geometry: Geometry,
    panel: Panel<'_>,
    bias: [S::f32s; V],
    image: &[f32],
    output: &mut [f32],
    [y, x]: [usize; 2],
) {
    let mut sums = [bias; R];
    let run = geometry.run();
    for line in 0..geometry.kernel {
        let mut runs = [&[][..]; R];
        let from = image.get(geometry.start(y, x, line)..).unwrap_or_default();
        for (index, place) in runs.iter_mut().enumerate() {
            let start = index * geometry.stride * geometry.channels;
            *place = from.get(start..start + run).unwrap_or_default();
        }
        add_rows(simd, &mut sums, runs, panel.rows(line * run, run));
    }
    for (output, sums) in output.chunks_exact_mut(geometry.filters).zip(sums) {
        store(simd, output.get_mut(panel.column..panel.column + panel.columns).unwrap_or_default(), sums);
    }
}

/// Adds the gradient of the filters that one image gives.
struct AddFilterGradient<'a> {
    geometry: Geometry,
    image: &'a [f32],
    /// Gradient of the output, `[places, filters]`.
    gradient: &'a Panels,
    /// `[patch, filters]`.
    sums: &'a mut [f32],
}

impl WithSimd for AddFilterGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        for panel in self.gradient.iter() {
            match panel.vectors {
                3 => self.panel::<S, 3>(simd, panel),
                2 => self.panel::<S, 2>(simd, panel),
                _ => self.panel::<S, 1>(simd, panel),
            }
        }
    }
}

impl AddFilterGradient<'_> {
    #[inline(always)]
    fn panel<S: Simd, const V: usize>(&mut self, simd: S, panel: Panel<'_>) {
        let Self { geometry, image, .. } = *self;
        let lines = self.sums.chunks_exact_mut((geometry.run() * geometry.filters).max(1));
        for (line, sums) in lines.enumerate() {
            let mut element = 0;
            for sums in sums.chunks_mut(TILE_ROWS * geometry.filters) {
                if sums.len() == TILE_ROWS * geometry.filters {
                    elements::<S, TILE_ROWS, V>(simd, geometry, panel, image, sums, [line, element]);
                    element += TILE_ROWS;
                } else {
                    for sums in sums.chunks_mut(geometry.filters) {
                        elements::<S, 1, V>(simd, geometry, panel, image, sums, [line, element]);
                        element += 1;
                    }
                }
            }
        }
    }
}

/// `R` neighbouring elements of a few filters, summed over all places.
#[inline(always)]
fn elements<S: Simd, const R: usize, const V: usize>(
    simd: S,
    geometry: Geometry,
    panel: Panel<'_>,
    image: &[f32],
    sums: &mut [f32],
    [line, element]: [usize; 2],
) {
    let mut accumulators = [[simd.splat_f32s(0.0); V]; R];
    for (values, sums) in accumulators.iter_mut().zip(sums.chunks_exact(geometry.filters)) {
        *values = load(simd, sums.get(panel.column..panel.column + panel.columns).unwrap_or_default());
    }
    for y in 0..geometry.out_height {
        let from = image.get(geometry.start(y, 0, line) + element..).unwrap_or_default();
        let gradient = panel.rows(y * geometry.out_width, geometry.out_width);
        add_columns(simd, &mut accumulators, from, geometry.stride * geometry.channels, gradient);
    }
    for (values, sums) in accumulators.into_iter().zip(sums.chunks_exact_mut(geometry.filters)) {
        store(simd, sums.get_mut(panel.column..panel.column + panel.columns).unwrap_or_default(), values);
    }
}

/// Adds the gradient of one image.
struct AddImageGradient<'a> {
    geometry: Geometry,
    /// `[filters, patch]`.
    weight: &'a Panels,
    /// Gradient of the output, `[places, filters]`.
    gradient: &'a [f32],
    /// Room for [`TILE_ROWS`] patches.
    patches: &'a mut [f32],
    /// The image's, with its padding.
    sums: &'a mut [f32],
}

impl WithSimd for AddImageGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let geometry = self.geometry;
        let row = geometry.out_width * geometry.filters;
        for (y, gradient) in self.gradient.chunks_exact(row.max(1)).enumerate() {
            for (tile, gradient) in gradient.chunks(TILE_ROWS * geometry.filters).enumerate() {
                let places = gradient.len() / geometry.filters.max(1);
                for panel in self.weight.iter() {
                    match panel.vectors {
                        3 => self.panel::<S, 3>(simd, panel, gradient),
                        2 => self.panel::<S, 2>(simd, panel, gradient),
                        _ => self.panel::<S, 1>(simd, panel, gradient),
                    }
                }
                self.add_patches(places, [y, tile * TILE_ROWS]);
            }
        }
    }
}

impl AddImageGradient<'_> {
    /// A few columns of the patches of the places whose gradients are given.
    #[inline(always)]
    fn panel<S: Simd, const V: usize>(&mut self, simd: S, panel: Panel<'_>, gradient: &[f32]) {
        let Geometry { filters, .. } = self.geometry;
        let mut rows = [&[][..]; TILE_ROWS];
        for (row, gradient) in rows.iter_mut().zip(gradient.chunks_exact(filters)) {
            *row = gradient;
        }
        let (mut sums, whole) = ([[simd.splat_f32s(0.0); V]; TILE_ROWS], gradient.len() == TILE_ROWS * filters);
        if whole {
            add_rows(simd, &mut sums, rows, panel.values);
        } else {
            for (sums, row) in sums.iter_mut().zip(rows).take(gradient.len() / filters.max(1)) {
                let mut alone = [*sums];
                add_rows(simd, &mut alone, [row], panel.values);
                let [value] = alone;
                *sums = value;
            }
        }
        let patch = self.geometry.patch();
        for (target, sums) in self.patches.chunks_exact_mut(patch.max(1)).zip(sums) {
            store(simd, target.get_mut(panel.column..panel.column + panel.columns).unwrap_or_default(), sums);
        }
    }

    /// Adds each patch where it came from, one place after the other.
    #[inline(always)]
    fn add_patches(&mut self, places: usize, [y, x]: [usize; 2]) {
        let (geometry, run) = (self.geometry, self.geometry.run());
        for (place, patch) in self.patches.chunks_exact(geometry.patch().max(1)).take(places).enumerate() {
            for (line, values) in patch.chunks_exact(run.max(1)).enumerate() {
                let start = geometry.start(y, x + place, line);
                let sums = self.sums.get_mut(start..start + run).unwrap_or_default();
                sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
            }
        }
    }
}

/// What one pass over a batch keeps of the filters and of scratch memory.
struct Workspace {
    geometry: Geometry,
    padded: Vec<f32>,
    patches: Vec<f32>,
    image_gradient: Vec<f32>,
}

impl Workspace {
    fn new(geometry: Geometry) -> Self {
        Self { geometry, padded: Vec::new(), patches: Vec::new(), image_gradient: Vec::new() }
    }

    /// `[patch, filters]` of a weight.
    fn for_outputs(&self, weight: &[f32]) -> Panels {
        Panels::new(Matrix::new(&self.geometry.by_patch(weight), self.geometry.patch()).transposed())
    }

    /// `[filters, patch]` of a weight.
    fn for_inputs(&self, weight: &[f32]) -> Panels {
        Panels::new(Matrix::new(&self.geometry.by_patch(weight), self.geometry.patch()))
    }

    fn convolve(&mut self, weight: &Panels, bias: &[f32], image: &[f32], output: &mut [f32]) {
        let geometry = self.geometry;
        let image = geometry.pad(image, &mut self.padded);
        vectorized(Convolve { geometry, weight, bias, image, output });
    }

    /// Adds to the gradient of the filters, `[patch, filters]`.
    fn add_filter_gradient(&mut self, image: &[f32], gradient: &[f32], sums: &mut [f32]) {
        let geometry = self.geometry;
        let image = geometry.pad(image, &mut self.padded);
        let gradient = Panels::new(Matrix::new(gradient, geometry.filters));
        vectorized(AddFilterGradient { geometry, image, gradient: &gradient, sums });
    }

    /// Writes the gradient of the image.
    fn image_gradient(&mut self, weight: &Panels, gradient: &[f32], image: &mut [f32]) {
        let geometry = self.geometry;
        self.patches.resize(TILE_ROWS * geometry.patch(), 0.0);
        self.image_gradient.clear();
        self.image_gradient.resize(geometry.padded_count(), 0.0);
        let (patches, sums) = (&mut self.patches, &mut self.image_gradient);
        vectorized(AddImageGradient { geometry, weight, gradient, patches, sums });
        geometry.unpad(&self.image_gradient, image);
    }
}
