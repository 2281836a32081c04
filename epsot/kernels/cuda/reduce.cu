// The reductions over the columns, for a block of rows and a part of the columns each. Nothing here is atomic but a
// counter, and all sums have a fixed order, so the bits do not depend on how blocks are scheduled.
//
// SUMS      out[i] = -eps log sum_j exp(h[j] - C[i, j] / eps), around a guess k of it
// VALUES    out[i, c] = sum_j exp(k[i] + h[j] - C[i, j] / eps) v[j, c], CHUNK of the q columns a block; WIDE: WIDTH
// SLOPES    out[i, c] = sum_j exp(k[i] + h[j] - C[i, j] / eps) grad_c C(x[i], y[j]), times `factor`
// COSTS     out[i] = sum_j C[i, j] v[j] with scale = 1 and inf * 0 = 0, times `factor`
constexpr int SUMS = 0, VALUES = 1, SLOPES = 2, COSTS = 3, WIDE = 4;
// What a launch does: all rows; only those where out is nan; or, for SUMS, out[i] = -eps times the largest exponent:
// a guess.
constexpr int ALL = 0, MARKED = 1, PEAKS = 2;
// Passes over the columns: the largest logit of each row in the tile of the image, then in all tiles; the sums.
constexpr int NEAREST = 0, HIGHEST = 1, TOTALS = 2;

template <class Form, int OP> struct Reduction {
    typedef typename Form::real T;
    static constexpr int RI = Form::RI, SJ = Form::SJ, TILE = Form::TILE, R = Form::R, THREADS = Form::THREADS;
    // Wide sums are a product of their own, with the exponentials in shared memory.
    static constexpr bool STAGED = OP == WIDE || (OP == SLOPES && Form::SLOPES == WIDTH);
    static constexpr int V = OP == VALUES ? CHUNK : OP == WIDE ? WIDTH : OP == SLOPES ? Form::SLOPES : 0;
    static constexpr int FOLD = STAGED ? 4 : Form::FOLD;  // tiles; 256 terms, or fewer, are summed in float32
    static constexpr int UNROLL = OP == SUMS ? Form::UNROLL : 1;
    static constexpr int W = 1 + V, S = STAGED ? 1 : W, Q = OP == VALUES || STAGED ? V : 1;
    struct Shared {
        alignas(16) T values[TILE][Q];
        union {
            alignas(16) T exponentials[STAGED ? TILE : 1][STAGED ? R + 16 / sizeof(T) : 1];
            double total[R][W];  // of the exponentials, and of the values
        };
        double weights[OP == COSTS ? TILE : 1];
        // Of the rows: what their logits have in common, log2(e) k, minus the reference of their weights.
        double rho[R], exponent[R], offset[R];
        bool todo[R];
        bool last;
    };

    Form& form;
    Shared& shared;
    const void* v;
    Index q, chunk;

    __device__ Reduction(Form& form, Shared& shared, const void* v, Index q, Index chunk)
        : form(form), shared(shared), v(v), q(q), chunk(chunk) {}

    // The values of the columns of a tile; 0 beyond the last.
    __device__ __forceinline__ void fill_values(Index begin)
    {
        if constexpr (OP == VALUES || STAGED) {
            const T* from;
            if constexpr (OP == SLOPES) from = form.p.y;
            else from = static_cast<const T*>(v);
            for (int e = threadIdx.x; e < TILE * V; e += THREADS) {
                const Index j = begin + e / V, c = chunk * V + e % V;
                shared.values[e / V][e % V] = j < form.p.m && c < q ? from[j * q + c] : T(0);
            }
        }
        if constexpr (OP == COSTS)
            for (int t = threadIdx.x; t < TILE; t += THREADS)
                shared.weights[t] = begin + t < form.p.m ? static_cast<const double*>(v)[form.p.y_order[begin + t]] : 0;
    }

    // total = the sums over the columns of w = 2^(z + offset), and of w times the values or slopes; or, for `peaks`,
    // offset = -max_j z, LOST where there is nothing.
    //
    // What may be left out of a sum is 2^limit, nothing if that is 0. Of a maximum, all that is below what is known of
    // it. -> what was left out, of any row
    __device__ __forceinline__ double sweep(Index begin, Index end, int pass, double limit)
    {
        const bool peaks = pass != TOTALS;
        Sum<T> sums[RI][S];
        T offset[RI];
        typename ProductOf<Form, STAGED, OP == SLOPES>::type product;
        if constexpr (STAGED) product.open(form, chunk);
#pragma unroll
        for (int r = 0; r < RI; ++r) {
            const T known = T(shared.offset[form.row(r)]);
            offset[r] = !peaks ? known : pass == NEAREST || !Form::SKIPS || lost(known) ? T(LOST) : -known;
#pragma unroll
            for (int c = 0; c < S; ++c) sums[r][c].clear();
        }
        typename Form::Walk walk(form, begin, end, !peaks);
        if constexpr (Form::SKIPS) {
            T height[RI];
#pragma unroll
            for (int r = 0; r < RI; ++r) height[r] = peaks ? -offset[r] : offset[r];
            walk.set(form.raise(height),
                     pass == NEAREST ? minus_infinity() : !peaks ? limit - SHARE_BITS : lost(limit) ? limit : 0,
                     peaks ? -minus_infinity() : exp2(limit));
        }
        int since = 0;
#pragma unroll 1
        for (Index tile; walk.next(tile);) {
            __syncthreads();  // everybody is done with the tile before
            const T bound = form.fill(tile);
            fill_values(tile);
            if (!walk.keeps(bound)) continue;
#pragma unroll 1
            for (int step = 0; peaks && step < Form::STEPS; ++step) find_peaks(step, offset);
            if (peaks) continue;
#pragma unroll UNROLL
            for (int step = 0; step < Form::STEPS; ++step) add(step, offset, sums);
            if constexpr (STAGED) {
                __syncthreads();  // the exponentials of all threads are there
                product.add(shared.exponentials, shared.values);
            }
            if (++since == FOLD) {
                since = 0;
#pragma unroll
                for (int r = 0; r < RI; ++r)
#pragma unroll
                    for (int c = 0; c < S; ++c) sums[r][c].fold();
                if constexpr (STAGED) product.fold();
            }
        }
        __syncthreads();  // everybody has read the offsets, and the exponentials
        store(peaks, offset, sums);
        if constexpr (STAGED)
            if (!peaks) product.store(shared.total);
        __syncthreads();
        if constexpr (Form::SKIPS) return walk.left_out;
        return 0;
    }

    __device__ __forceinline__ void find_peaks(int step, T (&offset)[RI])
    {
        typename Form::Columns c;
        T z[RI][SJ], t[RI][SJ];
        form.load(step, c);
        form.logits(c, z, t);
#pragma unroll
        for (int r = 0; r < RI; ++r)
#pragma unroll
            for (int s = 0; s < SJ; ++s) offset[r] = larger(z[r][s], offset[r]);  // nan is no peak
    }

    __device__ __forceinline__ void add(int step, const T (&offset)[RI], Sum<T> (&sums)[RI][S])
    {
        typename Form::Columns c;
        T z[RI][SJ], t[RI][SJ];
        form.load(step, c);
        form.logits(c, z, t);
#pragma unroll
        for (int s = 0; s < SJ; ++s) {
            T value[Q];
            if constexpr (OP == VALUES) take<Q>(shared.values[form.column(step, s)], value);
#pragma unroll
            for (int r = 0; r < RI; ++r) {
                if constexpr (OP == COSTS) {
                    const double v = shared.weights[form.column(step, s)];
                    if (v != 0) sums[r][0].total += v * double(t[r][s]);
                } else {
                    const T w = exponential(z[r][s] + offset[r]);
                    sums[r][0].add(w);
                    if constexpr (STAGED) {
                        const T size = OP == SLOPES ? stretch<Form::KIND>(t[r][s], T(form.p.scale)) : T(1);
                        shared.exponentials[form.column(step, s)][form.row(r)] = w * size;
                    } else {
#pragma unroll
                        for (int k = 0; k < V; ++k)
                            if constexpr (OP == SLOPES) sums[r][1 + k].add(w, form.slope(c, r, s, k, t[r][s]));
                            else sums[r][1 + k].add(w, value[k]);
                    }
                }
            }
        }
    }

    // What the lanes of a row found, as one.
    __device__ __forceinline__ void store(bool peaks, const T (&offset)[RI], Sum<T> (&sums)[RI][S])
    {
#pragma unroll
        for (int r = 0; r < RI; ++r) {
            const int row = form.row(r);
            if (peaks) {
                const T most = lane_max<Form::LX>(offset[r]);
                if (threadIdx.x % Form::LX == 0) shared.offset[row] = lost(most) ? LOST : -most;
                continue;
            }
#pragma unroll
            for (int c = 0; c < S; ++c) {
                sums[r][c].fold();
                const double all = lane_sum<Form::LX>(sums[r][c].total);
                if (threadIdx.x % Form::LX == 0) shared.total[row][c] = all;
            }
        }
    }

    // The totals, or offsets, of all parts of the columns, added up in order by the block that comes last, and what
    // they left out. partial: (chunks, parts, n, W), then (chunks, parts, blocks). -> whether this block is that one
    __device__ __forceinline__ bool join_parts(Index parts, bool peaks, double& left_out, double* partial, int* arrived)
    {
        const Index n = form.p.n, first = form.first;
        double* masses = partial + gridDim.z * parts * n * W + chunk * parts * gridDim.x + blockIdx.x;
        if (threadIdx.x == 0) masses[blockIdx.y * Index(gridDim.x)] = left_out;
#pragma unroll 1
        for (int row = threadIdx.x; row < R && first + row < n; row += THREADS)
#pragma unroll 1
            for (int c = 0; c < W; ++c)
                partial[((chunk * parts + blockIdx.y) * n + first + row) * W + c] =
                    peaks ? shared.offset[row] : shared.total[row][c];
        __syncthreads();
        if (threadIdx.x == 0) {
            __threadfence();  // what this block wrote is seen by all ...
            shared.last = atomicAdd(arrived + chunk * gridDim.x + blockIdx.x, 1) == parts - 1;
            __threadfence();  // ... and what they wrote by this one
        }
        __syncthreads();
        if (!shared.last) return false;
        constexpr int AT_ONCE = W == 1 ? 8 : 2;
        // What other blocks wrote is read past the cache of this multiprocessor, several parts at once: one after the
        // other they would take longer than the sums of a few thousand points.
        left_out = 0;
#pragma unroll AT_ONCE
        for (int part = 0; part < int(parts); ++part) left_out += __ldcg(masses + part * Index(gridDim.x));
#pragma unroll 1
        for (int row = threadIdx.x; row < R && first + row < n; row += THREADS)
#pragma unroll 1
            for (int c = 0; c < W; ++c) {
                double all = peaks ? LOST : 0;
                const double* from = partial + (chunk * parts * n + first + row) * W + c;
#pragma unroll AT_ONCE
                for (int part = 0; part < int(parts); ++part) {
                    const double one = __ldcg(from + part * (n * W));
                    if (!peaks) all += one;
                    else if (!lost(one)) all = lost(all) || one < all ? one : all;
                }
                if (peaks) shared.offset[row] = all;
                else shared.total[row][c] = all;
            }
        __syncthreads();
        return true;
    }

    // The results of a row, from its totals around its offset.
    __device__ __forceinline__ void write(int row, bool peaks, double eps, double factor, double* out) const
    {
        const Index i = form.p.x_order[form.first + row];
        const double height = shared.rho[row] - shared.offset[row], total = shared.total[row][0];
        if constexpr (OP == SUMS) {
            const bool empty = peaks ? lost(shared.offset[row]) : !(total > 0);
            out[i] = empty ? -minus_infinity() : -eps * LN_2 * (peaks ? height : log2(total) + height);
        } else if constexpr (OP == COSTS) {
            out[i] = factor * total;
        } else {
            const double size = total > 0 ? factor * exp2(height + shared.exponent[row]) : 0;
#pragma unroll 1
            for (int k = 0; k < V && chunk * V + k < q; ++k)
                out[i * q + chunk * V + k] = size != 0 ? shared.total[row][1 + k] * size : 0;  // not inf * 0
        }
    }

    // Which rows are to be computed, and around which reference. -> whether there is one
    __device__ __forceinline__ bool open(int mode, const double* k, double k_scale, const double* out)
    {
        bool any = false;
#pragma unroll 1
        for (int row = threadIdx.x; row < R; row += THREADS) {
            const Index i = form.p.x_order[smaller(form.first + row, form.p.n - 1)];
            shared.todo[row] = form.first + row < form.p.n && (mode != MARKED || out[i] != out[i]);
            shared.exponent[row] = OP == COSTS || mode == PEAKS ? 0 : k_scale * k[i];
            any |= shared.todo[row];
        }
        return __syncthreads_or(any);
    }
};

// grid: blocks of rows, parts of the columns, chunks of the q values. k: one number a row, log2(e) k = k_scale k[i].
// v: (m, q) values in the order of y, or the float64 weights of COSTS.
template <class Form, int OP>
__global__ void __launch_bounds__(Form::THREADS, OP == SUMS || Form::SKIPS ? Form::RESIDENT : 1)
reduce(const typename Form::entry* x, const typename Form::entry* y, const double* x_extra, const double* y_extra,
       const Index* x_order, const Index* y_order, const double* h, const double* prepared, const Index n,
       const Index m, const Index d, const Index down, const Index right, const Index groups, const double scale,
       const double limit, const double* k, const double k_scale, const double eps, const double factor,
       const void* v, const Index q, const int mode, double* partial, int* arrived, double* out)
{
    __shared__ typename Form::Shared of_form;
    __shared__ typename Reduction<Form, OP>::Shared shared;
    typedef typename Form::real T;
    const Source<typename Form::entry> source = {
        x, y, x_extra, y_extra, x_order, y_order, h, prepared, n, m, d, down, right, groups, scale};
    const Index parts = gridDim.y;
    const bool peaks = OP == SUMS && mode == PEAKS;
    Form form(of_form, source, blockIdx.x);
    Reduction<Form, OP> sums(form, shared, v, q, blockIdx.z);
    if (!sums.open(mode, k, k_scale, out)) return;
    form.open(shared.rho);
    __syncthreads();
#pragma unroll 1
    for (int row = threadIdx.x; row < Form::R; row += Form::THREADS) {
        const double shift = shared.rho[row] + shared.exponent[row];
        // As it is added to the logits.
        shared.offset[row] = T(shared.todo[row] && shift < -LOST && shift > LOST ? shift : LOST);
    }
    __syncthreads();
    const Index tiles = (m + Form::TILE - 1) / Form::TILE;
    Index begin = tiles * blockIdx.y / parts * Form::TILE, end = tiles * (blockIdx.y + 1) / parts * Form::TILE;
    constexpr int FIRST = Form::SKIPS ? NEAREST : HIGHEST, LAST = Form::SKIPS ? 2 : 1;
    // The first pass. Near the image a maximum, of which no sum is less, is as good as one everywhere, but needs no k,
    // whose sums are as small as the weights of the rows.
    int pass = peaks || mode == MARKED || (OP != SUMS && Form::SKIPS) ? FIRST : TOTALS;
#pragma unroll 1
    for (int attempt = mode == MARKED ? 1 : 0;; ++attempt) {  // the device decides: the host never waits to know
        if (attempt > 0) { begin = 0; end = m; }
        // Each part may leave out its share of 2^limit, so that all of them leave out no more. The last attempt leaves
        // out nothing: rounding of huge logits can hide what matters from a bound.
        const double budget = attempt == 2 ? minus_infinity() : attempt == 0 ? limit - log2(double(parts)) : limit;
        double left_out = 0;
#pragma unroll 1
        for (; pass <= (peaks ? HIGHEST : TOTALS); ++pass) {
            if (pass == HIGHEST && attempt == 0 && !peaks) continue;
            Index from = begin, to = end;
            if constexpr (Form::SKIPS)
                if (pass == NEAREST) form.nearest(from, to);
            left_out = sums.sweep(from, to, pass, budget);
        }
        if (attempt == 0 && parts > 1 && !sums.join_parts(parts, peaks, left_out, partial, arrived)) return;
        bool any = false, hopeless = false;
#pragma unroll 1
        for (int row = threadIdx.x; row < Form::R; row += Form::THREADS) {
            const double total = shared.total[row][0];
            const bool empty = OP != SUMS && shared.exponent[row] == minus_infinity();  // a row of weight zero
            const bool known = attempt == 0 ? trusted(total) : total > 0;
            const bool fine = OP == COSTS || peaks || empty || attempt == LAST
                              || (known && left_out <= 2 * exp2(limit) * total);
            if (fine && shared.todo[row]) sums.write(row, peaks, eps, factor, out);
            shared.todo[row] = shared.todo[row] && !fine;
            any |= shared.todo[row];
            hopeless |= shared.todo[row] && !known;
            // A guess that was wrong is replaced: by the sum, if that is known but too small for what was left out ...
            shared.offset[row] = shared.todo[row] && known ? T(shared.offset[row] - log2(total)) : LOST;
        }
        if (!__syncthreads_or(any)) return;
        // ... otherwise by the largest exponent.
        pass = __syncthreads_or(hopeless) ? FIRST : TOTALS;
    }
}
