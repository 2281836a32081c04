// Both sides of a sweep from one logit, w = 2^SHIFT exp(k[i] + h[j] - C[i, j] / eps), without atomics: for forms whose
// logits are most of the work, so not for Near. A block goes over a band of rows and a band of columns, and its sums
// are its own until `finish` adds up the bands in order. The bands are few, so memory stays a multiple of n + m.
//
// first > 0: rows and columns are one support and k is h, and the rows begin with band first - 1, of which there are
// those of one of several devices. Only the bands on and right of the diagonal are visited; those on it one-sided. Atomic sums would visit no fewer pairs, and their order, so the bits of the result, would
// be left to chance.
constexpr double SHIFT = 40;  // plans have entries like 1e-20: sums from 1e-30 to 1e18 are in the window
constexpr double LARGEST_PLAN = LARGEST * 1099511627776.0;  // 2^100

// c[s] summed over the lanes that share their columns. Halves are exchanged while there are two, so that 32 lanes
// need about one exchange a column. -> how many of the SJ columns this lane is left with, from `base` on
template <int SJ, int LX, typename T> __device__ __forceinline__ int scatter(T (&c)[SJ], int& base)
{
    int count = SJ;
    base = 0;
#pragma unroll
    for (int step = LX; step < 32; step *= 2) {
        const bool upper = threadIdx.x & step;
        if (count > 1) {
            count /= 2;
            base += upper ? count : 0;
#pragma unroll
            for (int i = 0; i < SJ / 2; ++i)
                if (i < count) {
                    const T give = upper ? c[i] : c[i + count], keep = upper ? c[i + count] : c[i];
                    c[i] = keep + __shfl_xor_sync(0xffffffffu, give, step);
                }
        } else {
            c[0] += __shfl_xor_sync(0xffffffffu, c[0], step);
        }
    }
    return count;
}

template <class Form> struct TwoSided {
    typedef typename Form::real T;
    static constexpr int RI = Form::RI, SJ = Form::SJ, TILE = Form::TILE, WARPS = Form::THREADS / 32;
    struct Shared {
        T columns[WARPS][TILE];
        double rho[Form::R];
    };

    Form& form;
    Shared& shared;
    T offset[RI];
    Sum<T> sums[RI];

    __device__ TwoSided(Form& form, Shared& shared) : form(form), shared(shared) {}

    // The rows of this block with the columns begin to end; other: the sums of the columns.
    __device__ __forceinline__ void sweep(Index begin, Index end, double* other, bool two_sided)
    {
#pragma unroll
        for (int r = 0; r < RI; ++r) sums[r].clear();
        int since = 0;
        for (Index tile = begin; tile < end; tile += TILE) {
            __syncthreads();  // everybody is done with the tile before
            form.fill(tile);
            __syncthreads();
#pragma unroll 1
            for (int step = 0; step < Form::STEPS; ++step) add_step(step);
            if (++since == Form::FOLD) {
                since = 0;
#pragma unroll
                for (int r = 0; r < RI; ++r) sums[r].fold();
            }
            if (!two_sided) continue;
            __syncthreads();  // the sums of all warps are there
            for (int t = threadIdx.x; t < TILE; t += Form::THREADS) {
                double total = 0;
                for (int warp = 0; warp < WARPS; ++warp) total += shared.columns[warp][t];
                if (tile + t < form.p.m) other[tile + t] += total;  // nobody else has this band
            }
        }
    }

    __device__ __forceinline__ void add_step(int step)
    {
        typename Form::Columns c;
        T z[RI][SJ], t[RI][SJ], column[SJ];
        form.load(step, c);
        form.logits(c, z, t);
#pragma unroll
        for (int s = 0; s < SJ; ++s) {
            column[s] = 0;
#pragma unroll
            for (int r = 0; r < RI; ++r) {
                const T w = exponential(z[r][s] + offset[r]);
                sums[r].add(w);
                column[s] += w;
            }
        }
        int base;
        const int count = scatter<SJ, Form::LX>(column, base);
        if (threadIdx.x % 32 / Form::LX < SJ)
#pragma unroll
            for (int i = 0; i < SJ; ++i)
                if (i < count) shared.columns[threadIdx.x / 32][form.column(step, base + i)] = column[i];
    }
};

// grid: bands of columns, bands of rows, of band_columns and band_rows. row_sums: (bands of columns, n),
// column_sums: (bands of rows, m), both zero at first, in the orders of x and y.
template <class Form>
__global__ void __launch_bounds__(Form::THREADS, 1)
pair(const typename Form::entry* x, const typename Form::entry* y, const double* x_extra, const double* y_extra,
     const Index* x_order, const Index* y_order, const double* h, const double* prepared, const Index n, const Index m,
     const Index d, const Index down, const Index right, const Index groups, const double scale, const double,
     const double* k, const Index band_rows, const Index band_columns, const int first, double* row_sums,
     double* column_sums)
{
    typedef typename Form::real T;
    __shared__ typename Form::Shared of_form;
    __shared__ typename TwoSided<Form>::Shared of_sums;
    const Index diagonal = Index(blockIdx.y) + first - 1;
    if (first && diagonal > blockIdx.x) return;
    const bool two_sided = !first || diagonal < blockIdx.x;
    const Source<typename Form::entry> source = {
        x, y, x_extra, y_extra, x_order, y_order, h, prepared, n, m, d, down, right, groups, scale};
    const Index begin = band_columns * blockIdx.x, end = smaller(begin + band_columns, m);
    const Index last = (smaller(band_rows * (blockIdx.y + 1), n) + Form::R - 1) / Form::R;
#pragma unroll 1
    for (Index block = band_rows * blockIdx.y / Form::R; block < last; ++block) {
        Form form(of_form, source, block);
        TwoSided<Form> both(form, of_sums);
        double exact[Form::RI];
        form.open(of_sums.rho);
        __syncthreads();
#pragma unroll
        for (int r = 0; r < Form::RI; ++r) {
            const Index i = form.first + form.row(r);
            const double shift = of_sums.rho[form.row(r)] + LOG2_E * k[x_order[smaller(i, n - 1)]] + SHIFT;
            exact[r] = i < n && shift < -LOST && shift > LOST ? shift : LOST;
            both.offset[r] = T(exact[r]);
        }
        both.sweep(begin, end, column_sums + blockIdx.y * m, two_sided);
#pragma unroll
        for (int r = 0; r < Form::RI; ++r) {
            both.sums[r].fold();
            const double total = lane_sum<Form::LX>(both.sums[r].total);
            const Index i = form.first + form.row(r);
            if (i < n && threadIdx.x % Form::LX == 0)
                row_sums[blockIdx.x * n + i] = total * exp2(exact[r] - double(both.offset[r]));
        }
    }
}

// out[i] = eps (k[i] - log(sum of the bands) + SHIFT log 2), nan where that sum cannot be trusted.
__global__ void finish(const double* sums, const Index bands, const double* others, const Index other_bands,
                       const Index n, const Index* order, const double* k, const double eps, double* out)
{
    const Index i = blockIdx.x * Index(blockDim.x) + threadIdx.x;
    if (i >= n) return;
    double total = 0;
    for (Index band = 0; band < bands; ++band) total += sums[band * n + i];
    for (Index band = 0; band < other_bands; ++band) total += others[band * n + i];
    const double result = eps * (k[order[i]] - LN_2 * (log2(total) - SHIFT));
    out[order[i]] = total >= SMALLEST && total <= LARGEST_PLAN ? result : not_a_number();
}
