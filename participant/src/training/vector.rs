//! Products of matrices on one thread, in vector instructions and with a fixed order of sums.
//!
//! The numeric library's own products ask the operating system for the number of processors each time, which takes longer
//! than a step of a small model, and its convolutions and element-wise operations spread over threads of their own. Here a
//! value of a product is the sum of its terms from first to last, each added with one rounding (a fused multiply-add), so it
//! is the same for every width of the processor's vectors and for any number of threads.
//!
//! A product is computed in tiles of a few rows and columns that stay in registers. The right factor is laid out in
//! [`Panels`] first, the left one is read where it lies, either by rows or by columns.

mod tile;

use pulp::{Simd, WithSimd};

pub(super) use tile::{TILE_ROWS, add_columns, add_rows, load, store};

/// Vectors in a row of a tile: with four rows, their sums and factors fit into the sixteen registers of AVX2.
const TILE_VECTORS: usize = 3;

/// Rows of the right factor that are laid out at a time, so that a panel stays in the fastest cache.
const DEPTH_TOGETHER: usize = 512;

/// Runs `operation` with the widest vectors that are used on this processor.
pub(super) fn vectorized<Op: WithSimd>(operation: Op) -> Op::Output {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = pulp::x86::V3::try_new() {
        return Simd::vectorize(simd, operation);
    }
    pulp::Arch::new().dispatch(operation)
}

/// A matrix where it lies.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    values: &'a [f32],
    /// Values from one row in memory to the next.
    stride: usize,
    transposed: bool,
}

impl<'a> Matrix<'a> {
    /// A row-major matrix with rows of `columns` values.
    pub(super) const fn new(values: &'a [f32], columns: usize) -> Self {
        Self { values, stride: if columns == 0 { 1 } else { columns }, transposed: false }
    }

    /// Its transpose.
    pub(super) const fn transposed(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }

    /// Rows and columns.
    const fn size(&self) -> (usize, usize) {
        let lines = self.values.len() / self.stride;
        if self.transposed { (self.stride, lines) } else { (lines, self.stride) }
    }
}

/// A right factor in the order in which tiles read it: columns in groups of a few vectors, and of each group row after row,
/// filled up with zeros.
pub(super) struct Panels {
    values: Vec<f32>,
    depth: usize,
    columns: usize,
    lanes: usize,
}

/// One group of columns.
#[derive(Clone, Copy)]
pub(super) struct Panel<'a> {
    /// Where the group begins.
    pub(super) column: usize,
    /// How many columns it has.
    pub(super) columns: usize,
    /// How many vectors they fill.
    pub(super) vectors: usize,
    /// Values of one row in `values`.
    pub(super) stride: usize,
    pub(super) values: &'a [f32],
}

impl Panels {
    /// Lays out a whole matrix.
    pub(super) fn new(matrix: Matrix<'_>) -> Self {
        let (rows, _) = matrix.size();
        Self::of_rows(matrix, 0, rows, vectorized(Lanes))
    }

    /// Lays out `depth` rows from `start`.
    fn of_rows(matrix: Matrix<'_>, start: usize, depth: usize, lanes: usize) -> Self {
        let (_, columns) = matrix.size();
        let mut values = Vec::with_capacity(depth * columns.next_multiple_of(lanes));
        for (column, vectors) in groups(columns, lanes) {
            let (width, stride) = ((vectors * lanes).min(columns - column), vectors * lanes);
            if matrix.transposed {
                let begin = values.len();
                values.resize(begin + depth * stride, 0.0);
                let group = values.get_mut(begin..).unwrap_or_default();
                let lines = matrix.values.chunks_exact(matrix.stride).skip(column).take(width);
                for (lane, line) in lines.enumerate() {
                    let line = line.iter().skip(start).take(depth);
                    for (target, value) in group.iter_mut().skip(lane).step_by(stride).zip(line) {
                        *target = *value;
                    }
                }
            } else {
                for line in matrix.values.chunks_exact(matrix.stride).skip(start).take(depth) {
                    let end = values.len() + stride;
                    values.extend_from_slice(line.get(column..column + width).unwrap_or_default());
                    values.resize(end, 0.0);
                }
            }
        }
        Self { values, depth, columns, lanes }
    }

    /// Every group.
    pub(super) fn iter(&self) -> impl Iterator<Item = Panel<'_>> {
        let mut rest = self.values.as_slice();
        groups(self.columns, self.lanes).map(move |(column, vectors)| {
            let stride = vectors * self.lanes;
            let (values, behind) = rest.split_at_checked(self.depth * stride).unwrap_or_default();
            rest = behind;
            Panel { column, columns: stride.min(self.columns - column), vectors, stride, values }
        })
    }
}

impl<'a> Panel<'a> {
    /// `count` rows from `start`.
    pub(super) fn rows(self, start: usize, count: usize) -> &'a [f32] {
        let start = start * self.stride;
        self.values.get(start..start + count * self.stride).unwrap_or_default()
    }
}

/// First column and number of vectors of each group. Four vectors are two and two, not three and one.
fn groups(columns: usize, lanes: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut column = 0;
    std::iter::from_fn(move || {
        let vectors = match (columns - column).div_ceil(lanes) {
            0 => return None,
            4 => 2,
            left => left.min(TILE_VECTORS),
        };
        let start = column;
        column = columns.min(column + vectors * lanes);
        Some((start, vectors))
    })
}

/// Values in a vector.
struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;

    fn with_simd<S: Simd>(self, _simd: S) -> usize {
        S::F32_LANES
    }
}

/// Adds `left · right` to `sums`, which is row-major; rows and columns that do not fit are left out.
pub(super) fn add_product(sums: &mut [f32], left: Matrix<'_>, right: Matrix<'_>) {
    let (depth, columns) = right.size();
    if columns == 0 {
        return;
    }
    let lanes = vectorized(Lanes);
    for start in (0..depth).step_by(DEPTH_TOGETHER) {
        let depth = DEPTH_TOGETHER.min(depth - start);
        let right = Panels::of_rows(right, start, depth, lanes);
        vectorized(AddProduct { sums, columns, left, start, depth, right: &right });
    }
}

struct AddProduct<'a> {
    sums: &'a mut [f32],
    columns: usize,
    left: Matrix<'a>,
    /// Terms of the sum that are added: `depth` from `start`.
    start: usize,
    depth: usize,
    right: &'a Panels,
}

impl WithSimd for AddProduct<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        for panel in self.right.iter() {
            match panel.vectors {
                3 => self.panel::<S, 3>(simd, panel),
                2 => self.panel::<S, 2>(simd, panel),
                _ => self.panel::<S, 1>(simd, panel),
            }
        }
    }
}

impl AddProduct<'_> {
    #[inline(always)]
    fn panel<S: Simd, const V: usize>(&mut self, simd: S, panel: Panel<'_>) {
        let mut row = 0;
        for sums in self.sums.chunks_mut(TILE_ROWS * self.columns) {
            if sums.len() == TILE_ROWS * self.columns {
                tile::<S, TILE_ROWS, V>(simd, sums, self.columns, panel, self.left, [row, self.start, self.depth]);
                row += TILE_ROWS;
            } else {
                for sums in sums.chunks_mut(self.columns) {
                    tile::<S, 1, V>(simd, sums, self.columns, panel, self.left, [row, self.start, self.depth]);
                    row += 1;
                }
            }
        }
    }
}

/// Adds to one tile: `sums` are its rows.
#[inline(always)]
fn tile<S: Simd, const R: usize, const V: usize>(
    simd: S,
    sums: &mut [f32],
    columns: usize,
    panel: Panel<'_>,
    left: Matrix<'_>,
    [row, start, depth]: [usize; 3],
) {
    let mut accumulators = [[simd.splat_f32s(0.0); V]; R];
    for (values, sums) in accumulators.iter_mut().zip(sums.chunks(columns)) {
        *values = load(simd, sums.get(panel.column..panel.column + panel.columns).unwrap_or_default());
    }
    if left.transposed {
        let left_columns = left.values.get(start * left.stride + row..).unwrap_or_default();
        add_columns(simd, &mut accumulators, left_columns, left.stride, panel.values);
    } else {
        let mut rows = [&[][..]; R];
        for (rows, line) in rows.iter_mut().zip(left.values.chunks_exact(left.stride).skip(row)) {
            *rows = line.get(start..start + depth).unwrap_or_default();
        }
        add_rows(simd, &mut accumulators, rows, panel.values);
    }
    for (values, sums) in accumulators.into_iter().zip(sums.chunks_mut(columns)) {
        store(simd, sums.get_mut(panel.column..panel.column + panel.columns).unwrap_or_default(), values);
    }
}

/// Partial sums of a dot product: as many on every processor, because they decide the order of the sum.
const DOT_LANES: usize = 32;

/// Adds to each sum the product of one row of `rows` with `vector`, in [`DOT_LANES`] interleaved partial sums.
pub(super) fn add_dot_products(sums: &mut [f32], rows: &[f32], vector: &[f32]) {
    vectorized(DotProducts { sums, rows, vector });
}

struct DotProducts<'a> {
    sums: &'a mut [f32],
    rows: &'a [f32],
    vector: &'a [f32],
}

impl WithSimd for DotProducts<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        let (vector_lanes, vector_rest) = self.vector.as_chunks::<DOT_LANES>();
        for (sum, row) in self.sums.iter_mut().zip(self.rows.chunks_exact(self.vector.len().max(1))) {
            let (row_lanes, row_rest) = row.as_chunks::<DOT_LANES>();
            let mut partial = [0.0; DOT_LANES];
            for (row, vector) in row_lanes.iter().zip(vector_lanes) {
                for ((partial, value), weight) in partial.iter_mut().zip(row).zip(vector) {
                    *partial += value * weight;
                }
            }
            *sum += partial.iter().sum::<f32>();
            *sum += row_rest.iter().zip(vector_rest).map(|(value, weight)| value * weight).sum::<f32>();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values without a pattern, between -1 and 1.
    fn values(count: usize, seed: u32) -> Vec<f32> {
        let value = |index: u32| (index.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 8) as f32 / 8_388_608.0 - 1.0;
        (0..count as u32).map(value).collect()
    }

    fn transpose(values: &[f32], columns: usize) -> Vec<f32> {
        (0..columns).flat_map(|column| values.iter().skip(column).step_by(columns).copied()).collect()
    }

    /// One term after the other, each with one rounding.
    fn reference(sums: &[f32], left: &[f32], right: &[f32], depth: usize, columns: usize) -> Vec<f32> {
        let term = |row: usize, column: usize, sum: f32| {
            (0..depth).fold(sum, |sum, k| left[row * depth + k].mul_add(right[k * columns + column], sum))
        };
        sums.iter().enumerate().map(|(index, sum)| term(index / columns, index % columns, *sum)).collect()
    }

    #[test]
    fn products_are_the_same_bits_as_one_term_after_the_other() {
        let sizes =
            [(1, 1, 1), (4, 3, 24), (5, 13, 7), (3, 2, 33), (9, 5, 100), (2, 1100, 25), (6, 40, 13), (8, 8, 32)];
        for (rows, depth, columns) in sizes {
            let (left, right) = (values(rows * depth, 1), values(depth * columns, 7));
            let sums = values(rows * columns, 3);
            let expected = reference(&sums, &left, &right, depth, columns);
            let (left_columns, right_columns) = (transpose(&left, depth), transpose(&right, columns));
            for left in [Matrix::new(&left, depth), Matrix::new(&left_columns, rows).transposed()] {
                for right in [Matrix::new(&right, columns), Matrix::new(&right_columns, depth).transposed()] {
                    let mut found = sums.clone();
                    add_product(&mut found, left, right);
                    assert_eq!(found, expected, "{rows} x {depth} x {columns}");
                }
            }
        }
    }

    #[test]
    fn every_width_of_vectors_gives_the_same_bits() {
        let (rows, depth, columns) = (7, 19, 37);
        let (left, right) = (values(rows * depth, 1), values(depth * columns, 7));
        let mut found = vec![0.0; rows * columns];
        let matrix = Matrix::new(&right, columns);
        let mut scalar = found.clone();
        // What a processor without vectors would do.
        let panels = Panels::of_rows(matrix, 0, depth, 1);
        let operation =
            AddProduct { sums: &mut scalar, columns, left: Matrix::new(&left, depth), start: 0, depth, right: &panels };
        operation.with_simd(pulp::Scalar);
        add_product(&mut found, Matrix::new(&left, depth), matrix);
        assert_eq!(found, scalar);
    }

    #[test]
    fn dot_products_are_near_those_in_double_precision() {
        for length in [1, 31, 32, 33, 1000] {
            let (rows, vector) = (values(3 * length, 5), values(length, 9));
            let mut found = [0.5f32; 3];
            add_dot_products(&mut found, &rows, &vector);
            for (found, row) in found.iter().zip(rows.chunks(length)) {
                let expected: f64 = row.iter().zip(&vector).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                assert!((f64::from(*found) - 0.5 - expected).abs() < 1e-4, "{length}: {found} is not {expected} + 0.5");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let mut sums = [1.0; 6];
        add_product(&mut sums, Matrix::new(&[1.0; 2], 2), Matrix::new(&[], 3));
        assert_eq!(sums, [1.0; 6]);
    }
}
