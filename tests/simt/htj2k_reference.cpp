// A reference encoder of lossless HTJ2K: one tile, one layer, code blocks of 64 x 64 with one HT cleanup pass each,
// RPCL. Written stage by stage after T.800 and T.814, for clarity and not for speed: it is the oracle of the kernels,
// and is itself held to what OpenJPH and OpenJPEG decode.
//
// The CxtVLC tables stand in front of this when it is compiled (kernels/ht_tables.cuh).
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace {

typedef std::vector<uint8_t> Bytes;

int bits_of(uint32_t value) {
    int bits = 0;
    for (; value; value >>= 1) bits++;
    return bits;
}

// ---- The three bit streams of a cleanup segment (T.814 7.1)

// Lowest bit first. A byte after 0xFF has 7 bits.
class MagSgn {
  public:
    void put(uint32_t value, int count) {
        for (int i = 0; i < count; i++) put_bit(value >> i & 1);
    }
    // The last byte is filled with ones. A decoder goes on with 0xFF, so that a last 0xFF need not be there.
    Bytes finished() {
        while (used_) put_bit(1);
        if (!bytes_.empty() && bytes_.back() == 0xFF) bytes_.pop_back();
        return bytes_;
    }

  private:
    void put_bit(int bit) {
        byte_ |= bit << used_++;
        const int room = !bytes_.empty() && bytes_.back() == 0xFF ? 7 : 8;
        if (used_ < room) return;
        bytes_.push_back(uint8_t(byte_));
        byte_ = used_ = 0;
    }
    Bytes bytes_;
    int byte_ = 0, used_ = 0;
};

// Lowest bit first, the bytes from the end of the segment backwards. After a byte above 0x8F, a byte whose first seven
// bits are ones ends there. The first 12 bits are ones that Scup will take the place of.
class Vlc {
  public:
    Vlc() { put(0xFFF, 12); }
    void put(uint32_t value, int count) {
        for (int i = 0; i < count; i++) {
            byte |= int(value >> i & 1) << used++;
            const bool short_byte = used == 7 && byte == 0x7F && !bytes.empty() && bytes.back() > 0x8F;
            if (used < 8 && !short_byte) continue;
            bytes.push_back(uint8_t(byte));
            byte = used = 0;
        }
    }
    Bytes bytes;  // the last byte of the segment first
    int byte = 0, used = 0;
};

// Highest bit first. A byte after 0xFF has 7 bits.
class HighFirst {
  public:
    void put(int bit) {
        byte = byte << 1 | bit;
        used++;
        if (used < room()) return;
        bytes.push_back(uint8_t(byte));
        byte = used = 0;
    }
    void put_number(uint32_t value, int count) {
        while (count--) put(value >> count & 1);
    }
    int room() const { return !bytes.empty() && bytes.back() == 0xFF ? 7 : 8; }
    Bytes bytes;
    int byte = 0, used = 0;
};

// The adaptive run-length coder (T.814 7.3.3).
class Mel {
  public:
    void event(bool significant) {
        static const int exponents[13] = {0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5};
        const int exponent = exponents[state_];
        if (significant) {
            bits.put(0);
            bits.put_number(uint32_t(run_), exponent);
            run_ = 0;
            state_ = std::max(0, state_ - 1);
        } else if (++run_ == 1 << exponent) {
            bits.put(1);
            run_ = 0;
            state_ = std::min(12, state_ + 1);
        }
    }
    void finish() {
        if (run_) bits.put(1);
    }
    HighFirst bits;

  private:
    int run_ = 0, state_ = 0;
};

// ---- The cleanup pass (T.814 7.3, read by an encoder)

// Which entries of the two tables have been used, for tests that want to know.
uint8_t used_codewords[4096];

struct Quad {
    bool significant[4] = {};
    int exponent[4] = {};
    uint32_t value[4] = {};
    int pattern() const {
        return significant[0] | significant[1] << 1 | significant[2] << 2 | significant[3] << 3;
    }
};

class Block {
  public:
    Block(const int32_t* coefficients, size_t stride, int columns, int rows)
        : across_((columns + 1) / 2), down_((rows + 1) / 2), quads_(size_t(across_ * down_)) {
        for (int y = 0; y < rows; y++)
            for (int x = 0; x < columns; x++) set(x, y, coefficients[size_t(y) * stride + size_t(x)]);
    }
    bool empty() const {
        return std::all_of(quads_.begin(), quads_.end(), [](const Quad& quad) { return quad.pattern() == 0; });
    }
    Bytes coded() {
        for (int y = 0; y < down_; y++)
            for (int x = 0; x < across_; x += 2) code_pair(x, y);
        return joined();
    }

  private:
    void set(int x, int y, int32_t coefficient) {
        if (!coefficient) return;
        Quad& quad = quads_[size_t(y / 2 * across_ + x / 2)];
        const int n = 2 * (x % 2) + y % 2;  // top left, bottom left, top right, bottom right
        const uint32_t magnitude = uint32_t(std::abs(coefficient));
        quad.significant[n] = true;
        quad.exponent[n] = bits_of(2 * magnitude - 1);
        quad.value[n] = 2 * (magnitude - 1) + (coefficient < 0);
    }
    const Quad& at(int x, int y) const {
        static const Quad none;
        return x < 0 || y < 0 || x >= across_ ? none : quads_[size_t(y * across_ + x)];
    }
    int context(int x, int y) const {
        const Quad& left = at(x - 1, y);
        if (y == 0) return (left.significant[0] | left.significant[1]) | left.significant[2] << 1 | left.significant[3] << 2;
        const Quad &left_above = at(x - 1, y - 1), &above = at(x, y - 1), &right_above = at(x + 1, y - 1);
        return (left_above.significant[3] | above.significant[1]) | (left.significant[2] | left.significant[3]) << 1 |
               (above.significant[3] | right_above.significant[1]) << 2;
    }
    // The exponent that the rows above promise; 1 where there is nothing to predict.
    int predicted(int x, int y) const {
        const int pattern = at(x, y).pattern();
        if (y == 0 || !(pattern & (pattern - 1))) return 1;
        const int largest = std::max({at(x - 1, y - 1).exponent[3], at(x, y - 1).exponent[1], at(x, y - 1).exponent[3],
                                      at(x + 1, y - 1).exponent[1]});
        return std::max(1, largest - 1);
    }
    // Codes significance and magnitudes of a quad; returns how far its exponent is above the predicted one.
    int code_quad(int x, int y) {
        const Quad& quad = at(x, y);
        const int largest = *std::max_element(quad.exponent, quad.exponent + 4), kappa = predicted(x, y);
        const int exponent = std::max(largest, kappa), number = context(x, y);
        int which = 0;
        if (exponent > kappa)
            for (int n = 0; n < 4; n++) which |= (quad.exponent[n] == largest) << n;
        if (number == 0) mel_.event(quad.pattern() != 0);
        const int place = number << 8 | quad.pattern() << 4 | which;
        used_codewords[(y ? 2048 : 0) + place] = 1;
        const uint32_t code = (y ? CODEWORDS : CODEWORDS_FIRST_ROW)[place];
        vlc_.put(code & 127, int(code >> 7 & 7));
        for (int n = 0; n < 4; n++)
            if (quad.significant[n]) magsgn_.put(quad.value[n], exponent - int(code >> (10 + n) & 1));
        return exponent - kappa;
    }
    struct Uvlc {
        uint32_t prefix;
        int prefix_bits;
        uint32_t suffix;
        int suffix_bits;
    };
    static Uvlc uvlc(int u) {  // T.814 table 3
        if (u == 0) return {0, 0, 0, 0};
        if (u == 1) return {1, 1, 0, 0};
        if (u == 2) return {2, 2, 0, 0};
        if (u <= 4) return {4, 3, uint32_t(u - 3), 1};
        return {0, 3, uint32_t(u - 5), 5};
    }
    void code_pair(int x, int y) {
        const int first = code_quad(x, y), second = x + 1 < across_ ? code_quad(x + 1, y) : 0;
        Uvlc one = uvlc(first), other = uvlc(second);
        if (y == 0 && first && second) {  // T.814 7.3.6
            const bool both_large = first > 2 && second > 2;
            mel_.event(both_large);
            if (both_large) one = uvlc(first - 2), other = uvlc(second - 2);
            else if (first > 2) other = {uint32_t(second - 1), 1, 0, 0};
        }
        vlc_.put(one.prefix, one.prefix_bits);
        vlc_.put(other.prefix, other.prefix_bits);
        vlc_.put(one.suffix, one.suffix_bits);
        vlc_.put(other.suffix, other.suffix_bits);
    }
    // MagSgn, MEL, VLC, with the length of the last two in the last 12 bits. MEL and VLC share a byte where they can.
    Bytes joined() {
        mel_.finish();
        HighFirst& mel = mel_.bits;
        const int mel_free = mel.room() - mel.used;  // after 0xFF the zero bit is there already
        if (mel_free < 8 || vlc_.used) {
            const int mel_byte = mel.used ? mel.byte << mel_free : 0;
            const int shared = mel_byte | vlc_.byte;
            const int mel_used = 0xFF << mel_free & 0xFF, vlc_used = (1 << vlc_.used) - 1;
            const bool agree = (shared & mel_used) == (mel_byte & mel_used) && (shared & vlc_used) == (vlc_.byte & vlc_used);
            if (agree && shared != 0xFF && vlc_.bytes.size() > 1) {
                mel.bytes.push_back(uint8_t(shared));
            } else {
                mel.bytes.push_back(uint8_t(mel_byte));
                vlc_.bytes.push_back(uint8_t(vlc_.byte));
            }
        }
        Bytes segment = magsgn_.finished();
        segment.insert(segment.end(), mel.bytes.begin(), mel.bytes.end());
        segment.insert(segment.end(), vlc_.bytes.rbegin(), vlc_.bytes.rend());
        const size_t length = mel.bytes.size() + vlc_.bytes.size();
        segment[segment.size() - 1] = uint8_t(length >> 4);
        segment[segment.size() - 2] = uint8_t((segment[segment.size() - 2] & 0xF0) | (length & 15));
        return segment;
    }
    int across_, down_;
    std::vector<Quad> quads_;
    MagSgn magsgn_;
    Vlc vlc_;
    Mel mel_;
};

// ---- The reversible 5/3 wavelet (T.800 Annex F)

// A line of samples at places 0 .. n - 1; low-pass samples come first in the result.
std::vector<int32_t> analysed(const std::vector<int32_t>& line) {
    const int count = int(line.size());
    if (count == 1) return line;
    std::vector<int32_t> lifted = line;
    const auto mirrored = [&](int place) {
        if (place < 0) place = -place;
        return lifted[size_t(place < count ? place : 2 * (count - 1) - place)];
    };
    for (int i = 1; i < count; i += 2) lifted[size_t(i)] -= (mirrored(i - 1) + mirrored(i + 1)) >> 1;
    for (int i = 0; i < count; i += 2) lifted[size_t(i)] += (mirrored(i - 1) + mirrored(i + 1) + 2) >> 2;
    std::vector<int32_t> result;
    for (int i = 0; i < count; i += 2) result.push_back(lifted[size_t(i)]);
    for (int i = 1; i < count; i += 2) result.push_back(lifted[size_t(i)]);
    return result;
}

struct Plane {
    int columns, rows;
    std::vector<int32_t> values;
    int32_t& at(int x, int y) { return values[size_t(y) * size_t(columns) + size_t(x)]; }
};

void transform(Plane& plane, int levels) {
    int columns = plane.columns, rows = plane.rows;
    for (; levels--; columns = (columns + 1) / 2, rows = (rows + 1) / 2) {
        for (int x = 0; x < columns; x++) {
            std::vector<int32_t> line;
            for (int y = 0; y < rows; y++) line.push_back(plane.at(x, y));
            line = analysed(line);
            for (int y = 0; y < rows; y++) plane.at(x, y) = line[size_t(y)];
        }
        for (int y = 0; y < rows; y++) {
            const auto start = plane.values.begin() + y * int64_t(plane.columns);
            const std::vector<int32_t> line = analysed(std::vector<int32_t>(start, start + columns));
            std::copy(line.begin(), line.end(), start);
        }
    }
}

// ---- Packets (T.800 B.9, B.10)

class TagTree {
  public:
    TagTree(int across, int down, const std::vector<int>& leaves) {
        levels_.push_back({across, leaves, std::vector<int>(leaves.size()), std::vector<bool>(leaves.size())});
        while (across * down > 1) {
            const int wide = across, high = down;
            across = (wide + 1) / 2;
            down = (high + 1) / 2;
            Level above = {across, std::vector<int>(size_t(across * down), 1 << 30), std::vector<int>(size_t(across * down)),
                           std::vector<bool>(size_t(across * down))};
            for (int i = 0; i < wide * high; i++) {
                int& value = above.value[size_t(i / wide / 2 * across + i % wide / 2)];
                value = std::min(value, levels_.back().value[size_t(i)]);
            }
            levels_.push_back(above);
        }
    }
    // Tells whether the leaf is below the threshold (T.800 B.10.2).
    void code(HighFirst& out, int x, int y, int threshold) {
        int least = 0;
        for (size_t number = levels_.size(); number-- > 0;) {
            Level& level = levels_[number];
            const size_t node = size_t((y >> number) * level.across + (x >> number));
            least = std::max(least, level.least[node]);
            for (; least < threshold && !level.known[node];) {
                level.known[node] = level.value[node] == least;
                out.put(level.known[node]);
                if (!level.known[node]) least++;
            }
            level.least[node] = least;
        }
    }

  private:
    struct Level {
        int across;
        std::vector<int> value, least;
        std::vector<bool> known;
    };
    std::vector<Level> levels_;
};

struct Band {
    int x, y, columns, rows, planes;
};

// Resolution by resolution; the number of bit-planes is exponent + guard bits - 1 (T.800 equation E-2).
std::vector<std::vector<Band>> resolutions(int columns, int rows, int levels, int exponent, int guard) {
    std::vector<std::vector<Band>> found;
    for (; levels--; columns = (columns + 1) / 2, rows = (rows + 1) / 2) {
        const int wide = (columns + 1) / 2, high = (rows + 1) / 2, planes = exponent + guard;
        found.push_back({{wide, 0, columns - wide, high, planes},
                         {0, high, wide, rows - high, planes},
                         {wide, high, columns - wide, rows - high, planes + 1}});
    }
    found.push_back({{0, 0, columns, rows, exponent + guard - 1}});
    std::reverse(found.begin(), found.end());
    return found;
}

void put_block_header(HighFirst& header, TagTree& inclusion, TagTree& planes, int x, int y, int kmax, size_t length) {
    inclusion.code(header, x, y, 1);
    if (!length) return;
    planes.code(header, x, y, kmax);
    header.put(0);  // one coding pass
    const int bits = std::max(3, bits_of(uint32_t(length)));
    for (int i = 3; i < bits; i++) header.put(1);
    header.put(0);
    header.put_number(uint32_t(length), bits);
}

// The blocks of one band; their header bits and their bytes.
void put_band(const Band& band, const std::vector<Bytes>& blocks, HighFirst& header, Bytes& body) {
    if (blocks.empty()) return;
    const int across = (band.columns + 63) / 64, down = (band.rows + 63) / 64;
    std::vector<int> included;
    for (const Bytes& block : blocks) included.push_back(block.empty());
    TagTree inclusion(across, down, included), planes(across, down, std::vector<int>(blocks.size(), band.planes - 1));
    for (int i = 0; i < across * down; i++) {
        const Bytes& block = blocks[size_t(i)];
        put_block_header(header, inclusion, planes, i % across, i / across, band.planes, block.size());
        body.insert(body.end(), block.begin(), block.end());
    }
}

Bytes packet(Plane& plane, const std::vector<Band>& bands) {
    std::vector<std::vector<Bytes>> blocks;
    bool any = false;
    for (const Band& band : bands) {
        blocks.emplace_back();
        for (int y = 0; y < band.rows && band.columns; y += 64)
            for (int x = 0; x < band.columns; x += 64) {
                Block block(&plane.at(band.x + x, band.y + y), size_t(plane.columns), std::min(64, band.columns - x),
                            std::min(64, band.rows - y));
                blocks.back().push_back(block.empty() ? Bytes() : block.coded());
                any = any || !blocks.back().back().empty();
            }
    }
    HighFirst header;
    Bytes body;
    header.put(any);
    for (size_t i = 0; any && i < bands.size(); i++) put_band(bands[i], blocks[i], header, body);
    // A last byte of 0xFF is followed by one more (T.800 B.10.1).
    while (header.used || (!header.bytes.empty() && header.bytes.back() == 0xFF)) header.put(0);
    header.bytes.insert(header.bytes.end(), body.begin(), body.end());
    return header.bytes;
}

// ---- The codestream (T.800 Annex A, T.814 Annex A)

class Writer {
  public:
    Writer& number(uint64_t value, int bytes) {
        while (bytes--) all.push_back(uint8_t(value >> (8 * bytes)));
        return *this;
    }
    Bytes all;
};

struct Image {
    int columns, rows, components, precision;
    bool is_signed, transformed;
    int levels;
    int exponent() const { return precision + transformed; }
    // Rounding takes coefficients of up to 3 bits past two guard bits.
    int guard() const { return exponent() <= 3 ? 3 : 2; }
};

void put_main_header(Writer& out, const Image& image) {
    out.number(0xFF4F, 2);
    out.number(0xFF51, 2).number(uint64_t(38 + 3 * image.components), 2).number(0x4000, 2);  // SIZ
    for (int i = 0; i < 2; i++) out.number(uint64_t(image.columns), 4).number(uint64_t(image.rows), 4).number(0, 8);
    out.number(uint64_t(image.components), 2);
    for (int i = 0; i < image.components; i++)
        out.number(uint64_t(image.precision - 1 + (image.is_signed ? 128 : 0)), 1).number(1, 1).number(1, 1);
    const int planes = image.exponent() + image.guard() - 1 + (image.levels ? 2 : 0);
    out.number(0xFF50, 2).number(8, 2).number(0x00020000, 4);  // CAP
    out.number(uint64_t(planes <= 8 ? 0 : planes < 28 ? planes - 8 : 13 + planes / 4), 2);
    out.number(0xFF52, 2).number(12, 2).number(0, 1).number(2, 1).number(1, 2).number(image.transformed, 1);  // COD
    out.number(uint64_t(image.levels), 1).number(4, 1).number(4, 1).number(0x40, 1).number(1, 1);
    out.number(0xFF5C, 2).number(uint64_t(4 + 3 * image.levels), 2).number(uint64_t(image.guard() << 5), 1);  // QCD
    out.number(uint64_t(image.exponent() << 3), 1);
    for (int i = 0; i < image.levels; i++)
        for (int more : {1, 1, 2}) out.number(uint64_t((image.exponent() + more) << 3), 1);
}

std::vector<Plane> planes_of(const Image& image, const int32_t* samples) {
    std::vector<Plane> planes;
    const int shift = image.is_signed ? 0 : 1 << (image.precision - 1);  // T.800 G.1
    const size_t pixels = size_t(image.columns) * size_t(image.rows), count = size_t(image.components);
    for (size_t c = 0; c < count; c++) {
        planes.push_back({image.columns, image.rows, {}});
        for (size_t i = 0; i < pixels; i++) planes[c].values.push_back(samples[i * count + c] - shift);
    }
    for (size_t i = 0; image.transformed && i < pixels; i++) {  // T.800 G.2.1
        const int32_t red = planes[0].values[i], green = planes[1].values[i], blue = planes[2].values[i];
        planes[0].values[i] = (red + 2 * green + blue) >> 2;
        planes[1].values[i] = blue - green;
        planes[2].values[i] = red - green;
    }
    return planes;
}

}  // namespace

extern "C" {

void reference_codewords(uint8_t* used, uint16_t* values) {
    for (int i = 0; i < 4096; i++) {
        used[i] = used_codewords[i];
        values[i] = i < 2048 ? CODEWORDS_FIRST_ROW[i] : CODEWORDS[i - 2048];
    }
}

// The segment of one block, rows `stride` apart; returns its bytes, 0 if it has none.
int64_t reference_block(const int32_t* coefficients, int64_t stride, int columns, int rows, uint8_t* out) {
    Block block(coefficients, size_t(stride), columns, rows);
    if (block.empty()) return 0;
    const Bytes bytes = block.coded();
    memcpy(out, bytes.data(), bytes.size());
    return int64_t(bytes.size());
}

// The wavelet of a plane in place, low-pass samples first.
void reference_wavelet(int32_t* values, int columns, int rows, int levels) {
    Plane plane = {columns, rows, std::vector<int32_t>(values, values + size_t(columns) * size_t(rows))};
    transform(plane, levels);
    std::copy(plane.values.begin(), plane.values.end(), values);
}

// Samples [rows][columns][components]; returns the codestream's bytes, which may be more than `room`.
int64_t reference_encode(const int32_t* samples, int columns, int rows, int components, int precision, int is_signed,
                         int transformed, int levels, uint8_t* out, int64_t room) {
    const Image image = {columns, rows, components, precision, is_signed != 0, transformed != 0, levels};
    std::vector<Plane> planes = planes_of(image, samples);
    for (Plane& plane : planes) transform(plane, levels);
    Bytes body;
    for (const auto& bands : resolutions(columns, rows, levels, image.exponent(), image.guard()))
        for (Plane& plane : planes) {
            const Bytes bytes = packet(plane, bands);
            body.insert(body.end(), bytes.begin(), bytes.end());
        }
    Writer writer;
    put_main_header(writer, image);
    const uint64_t length = 14 + body.size();
    writer.number(0xFF55, 2).number(10, 2).number(0, 1).number(0x60, 1).number(0, 2).number(length, 4);  // TLM
    writer.number(0xFF90, 2).number(10, 2).number(0, 2).number(length, 4).number(0, 1).number(1, 1);     // SOT
    writer.number(0xFF93, 2);
    writer.all.insert(writer.all.end(), body.begin(), body.end());
    writer.number(0xFFD9, 2);
    if (int64_t(writer.all.size()) <= room) memcpy(out, writer.all.data(), writer.all.size());
    return int64_t(writer.all.size());
}
}
