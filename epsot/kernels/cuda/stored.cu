// A matrix, read where it lies. ALONG: a warp has RI rows and its lanes neighbouring columns, for matrices whose
// columns are neighbours in memory; otherwise a thread has rows of its own, and the lanes neighbouring rows.
//
// Logits are float64, whatever the type of the entries. A constant of a row or a column changes no plan, but may be all
// that float32 has digits for: nothing can be centred here, because nothing is known of the entries.
template <typename Entry, bool ALONG, int THREADS_, int RI_, int SJ_, int TILE_>
struct Stored {
    typedef double T, real;
    typedef Entry entry;
    typedef Every<Stored> Walk;
    static constexpr int THREADS = THREADS_, RI = RI_, SJ = SJ_, TILE = TILE_, LX = ALONG ? 32 : 1;
    static constexpr int LY = THREADS / LX, R = LY * RI, STEPS = TILE / (LX * SJ), FOLD = ALONG ? 16 : 1;
    static constexpr int SLOPES = 0, KIND = SQUARE;
    static constexpr bool SKIPS = false;
    static constexpr int RESIDENT = 1, UNROLL = 1;
    struct Shared {
        alignas(16) T u[TILE];
        double reference;
        Best best;
    };
    struct Columns { T u[SJ]; int step; };

    Shared& shared;
    const Source<Entry>& p;
    const Index first;
    const T scale;
    Index begin;

    __device__ Stored(Shared& shared, const Source<Entry>& p, Index block)
        : shared(shared), p(p), first(block * R), scale(T(p.scale)) {}
    __device__ __forceinline__ int row(int r) const { return r * LY + threadIdx.x / LX; }
    __device__ __forceinline__ int column(int step, int s) const { return (step * SJ + s) * LX + threadIdx.x % LX; }

    __device__ __forceinline__ void open(double* rho)
    {
        double best = minus_infinity();
        Index image = -1;
        const Index stride = 1 + p.m / SAMPLES;
#pragma unroll 1
        for (Index j = threadIdx.x * stride; j < p.m; j += THREADS * stride)
            if (p.weight(j) > best) { best = p.weight(j); image = j; }
        block_best<THREADS>(shared.best, best, image);
        const double reference = best > minus_infinity() ? best : 0;
        if (threadIdx.x == 0) shared.reference = reference;
#pragma unroll 1
        for (int line = threadIdx.x; line < R; line += THREADS) rho[line] = reference;
    }

    __device__ __forceinline__ T fill(Index start)
    {
        begin = start;
        for (int t = threadIdx.x; t < TILE; t += THREADS)
            shared.u[t] = begin + t < p.m ? T(p.weight(begin + t) - shared.reference) : T(minus_infinity());
        return 0;
    }

    __device__ __forceinline__ void load(int step, Columns& c) const
    {
        c.step = step;
#pragma unroll
        for (int s = 0; s < SJ; ++s) c.u[s] = shared.u[column(step, s)];
    }

    __device__ __forceinline__ void logits(const Columns& c, T (&z)[RI][SJ], T (&t)[RI][SJ]) const
    {
#pragma unroll
        for (int r = 0; r < RI; ++r) {
            const Entry* at = p.x + smaller(first + row(r), p.n - 1) * p.down;
#pragma unroll
            for (int s = 0; s < SJ; ++s) {
                t[r][s] = scale * T(at[smaller(begin + column(c.step, s), p.m - 1) * p.right]);
                z[r][s] = c.u[s] - t[r][s];
            }
        }
    }
};
