#include "textflag.h"

// Go writes operands in AT&T's order: sources first, the destination last.

// reverse turns the bytes of each block round: GHASH's bits stand the other way (SP 800-38D
// section 6.3), and the counter is big endian.
DATA reverse<>+0x00(SB)/8, $0x08090a0b0c0d0e0f
DATA reverse<>+0x08(SB)/8, $0x0001020304050607
GLOBL reverse<>(SB), RODATA|NOPTR, $16

// poly is what remains of GHASH's polynomial where a product is folded by 64 bits.
DATA poly<>+0x00(SB)/8, $1
DATA poly<>+0x08(SB)/8, $0xc200000000000000
GLOBL poly<>(SB), RODATA|NOPTR, $16

// first are the counters of the first four blocks behind J0, and four the step to the next.
DATA first<>+0x00(SB)/8, $1
DATA first<>+0x08(SB)/8, $0
DATA first<>+0x10(SB)/8, $2
DATA first<>+0x18(SB)/8, $0
DATA first<>+0x20(SB)/8, $3
DATA first<>+0x28(SB)/8, $0
DATA first<>+0x30(SB)/8, $4
DATA first<>+0x38(SB)/8, $0
GLOBL first<>(SB), RODATA|NOPTR, $64
DATA four<>+0x00(SB)/8, $4
DATA four<>+0x08(SB)/8, $0
GLOBL four<>(SB), RODATA|NOPTR, $16

// Registers, in all that follows.
#define KEYS     AX  // round keys, 16 bytes each
#define ROUNDS   BX  // 10 or 14
#define POWERS   DX  // of H, the highest first: H^17 to H^1
#define DST      DI
#define SRC      SI
#define LEFT     CX
#define LO       Z8  // sums of products that are not reduced yet
#define MI       Z9
#define HI       Z10
#define HASH     Z12 // GHASH so far, in the lowest lane; the others are 0
#define POLY     Z13
#define STEP     Z14
#define COUNTER  Z15 // of the next four blocks, bytes reversed
#define K0       Z16 // round keys in each lane: Z16 to Z29 and, the last one, Z30
#define KLAST    Z30
#define REVERSE  Z31

#define H17 0   // offsets from POWERS
#define H16 16
#define H1  256

// LOAD_KEYS broadcasts the round keys.
#define LOAD_KEYS \
	VBROADCASTI32X4 (0*16)(KEYS), K0 \
	VBROADCASTI32X4 (1*16)(KEYS), Z17 \
	VBROADCASTI32X4 (2*16)(KEYS), Z18 \
	VBROADCASTI32X4 (3*16)(KEYS), Z19 \
	VBROADCASTI32X4 (4*16)(KEYS), Z20 \
	VBROADCASTI32X4 (5*16)(KEYS), Z21 \
	VBROADCASTI32X4 (6*16)(KEYS), Z22 \
	VBROADCASTI32X4 (7*16)(KEYS), Z23 \
	VBROADCASTI32X4 (8*16)(KEYS), Z24 \
	VBROADCASTI32X4 (9*16)(KEYS), Z25 \
	VBROADCASTI32X4 (10*16)(KEYS), Z26 \
	VBROADCASTI32X4 (11*16)(KEYS), Z27 \
	VBROADCASTI32X4 (12*16)(KEYS), Z28 \
	VBROADCASTI32X4 (13*16)(KEYS), Z29 \
	MOVQ ROUNDS, R8 \
	SHLQ $4, R8 \
	VBROADCASTI32X4 (KEYS)(R8*1), KLAST

#define ROUND4(k) \
	VAESENC k, Z0, Z0 \
	VAESENC k, Z1, Z1 \
	VAESENC k, Z2, Z2 \
	VAESENC k, Z3, Z3

// ROUNDS4 are all but the first key and the last round for Z0 to Z3. done is a label, as in what follows.
#define ROUNDS4(done) \
	ROUND4(Z17) \
	ROUND4(Z18) \
	ROUND4(Z19) \
	ROUND4(Z20) \
	ROUND4(Z21) \
	ROUND4(Z22) \
	ROUND4(Z23) \
	ROUND4(Z24) \
	ROUND4(Z25) \
	CMPQ ROUNDS, $10 \
	JE done \
	ROUND4(Z26) \
	ROUND4(Z27) \
	ROUND4(Z28) \
	ROUND4(Z29) \
done:

// ROUNDS1 are the same for one.
#define ROUNDS1(a, done) \
	VAESENC Z17, a, a \
	VAESENC Z18, a, a \
	VAESENC Z19, a, a \
	VAESENC Z20, a, a \
	VAESENC Z21, a, a \
	VAESENC Z22, a, a \
	VAESENC Z23, a, a \
	VAESENC Z24, a, a \
	VAESENC Z25, a, a \
	CMPQ ROUNDS, $10 \
	JE done \
	VAESENC Z26, a, a \
	VAESENC Z27, a, a \
	VAESENC Z28, a, a \
	VAESENC Z29, a, a \
done:

// NEXT makes four blocks of counters.
#define NEXT(a) \
	VPSHUFB REVERSE, COUNTER, a \
	VPADDD STEP, COUNTER, COUNTER \
	VPXORD K0, a, a

// MULTIPLY adds the products of data, four blocks, and powers of H to the sums. It needs t and u.
#define MULTIPLY(data, powers, t, u) \
	VPCLMULQDQ $0x00, powers, data, t \
	VPCLMULQDQ $0x11, powers, data, u \
	VPXORD t, LO, LO \
	VPXORD u, HI, HI \
	VPCLMULQDQ $0x01, powers, data, t \
	VPCLMULQDQ $0x10, powers, data, u \
	VPTERNLOGD $0x96, t, u, MI

// REDUCE folds the sums into HI: twice by 64 bits, from below.
#define REDUCE(lo, mi, hi, p, t) \
	VPCLMULQDQ $0x01, lo, p, t \
	VPSHUFD $0x4e, lo, lo \
	VPTERNLOGD $0x96, t, lo, mi \
	VPCLMULQDQ $0x01, mi, p, t \
	VPSHUFD $0x4e, mi, mi \
	VPTERNLOGD $0x96, t, mi, hi

// GATHER reduces the sums and adds up the four lanes.
#define GATHER \
	REDUCE(LO, MI, HI, POLY, Z11) \
	VEXTRACTI64X4 $1, Z10, Y11 \
	VPXOR Y11, Y10, Y10 \
	VEXTRACTI128 $1, Y10, X11 \
	VPXOR X11, X10, X12

#define CLEAR_SUMS \
	VPXOR X8, X8, X8 \
	VPXOR X9, X9, X9 \
	VPXOR X10, X10, X10

// func subWord(w uint32) uint32
TEXT ·subWord(SB), NOSPLIT, $0-12
	// With four equal columns there is nothing for ShiftRows to shift, and the last round mixes none.
	MOVL w+0(FP), AX
	VMOVD AX, X0
	VPBROADCASTD X0, X0
	VPXOR X1, X1, X1
	VAESENCLAST X1, X0, X0
	VMOVD X0, AX
	MOVL AX, ret+8(FP)
	RET

// func encryptBlock(c *wideGCM, block *[16]byte)
TEXT ·encryptBlock(SB), NOSPLIT, $0-16
	MOVQ c+0(FP), KEYS
	MOVQ block+8(FP), DST
	MOVQ (KEYS), ROUNDS
	ADDQ $8, KEYS
	VMOVDQU (DST), X0
	VPXOR (KEYS), X0, X0
	DECQ ROUNDS
round:
	ADDQ $16, KEYS
	VAESENC (KEYS), X0, X0
	DECQ ROUNDS
	JNZ round
	VAESENCLAST 16(KEYS), X0, X0
	VMOVDQU X0, (DST)
	RET

// func raise(powers *[20][16]byte)
// H^1 stands where it belongs.
TEXT ·raise(SB), NOSPLIT, $0-8
	MOVQ powers+0(FP), POWERS
	VBROADCASTI32X4 poly<>(SB), POLY
	VMOVDQU H1(POWERS), X0
	VMOVDQA X0, X1
	MOVQ $16, LEFT
	LEAQ (H1-16)(POWERS), DST
power:
	VPCLMULQDQ $0x00, X0, X1, X8
	VPCLMULQDQ $0x01, X0, X1, X9
	VPCLMULQDQ $0x10, X0, X1, X11
	VPXOR X11, X9, X9
	VPCLMULQDQ $0x11, X0, X1, X10
	REDUCE(X8, X9, X10, X13, X11)
	VMOVDQA X10, X1
	VMOVDQU X1, (DST)
	SUBQ $16, DST
	DECQ LEFT
	JNZ power
	VZEROUPPER
	RET

// BEGIN loads everything, leaves the encrypted J0 in the tag and begins GHASH with the block of associated
// data. It expects KEYS at the cipher, R9 at J0, R10 at the data, R11 at the tag.
#define BEGIN(done) \
	MOVQ (KEYS), ROUNDS \
	LEAQ 248(KEYS), POWERS \
	ADDQ $8, KEYS \
	LOAD_KEYS \
	VBROADCASTI32X4 reverse<>(SB), REVERSE \
	VBROADCASTI32X4 poly<>(SB), POLY \
	VBROADCASTI32X4 four<>(SB), STEP \
	VBROADCASTI32X4 (R9), COUNTER \
	VPXORD K0, COUNTER, Z7 \
	VPSHUFB REVERSE, COUNTER, COUNTER \
	VPADDD first<>(SB), COUNTER, COUNTER \
	ROUNDS1(Z7, done) \
	VAESENCLAST KLAST, Z7, Z7 \
	VMOVDQU X7, (R11) \
	VMOVDQU (R10), X0 \
	VPSHUFB reverse<>(SB), X0, X0 \
	VMOVDQU H1(POWERS), X1 \
	VPCLMULQDQ $0x00, X0, X1, X8 \
	VPCLMULQDQ $0x01, X0, X1, X9 \
	VPCLMULQDQ $0x10, X0, X1, X11 \
	VPXOR X11, X9, X9 \
	VPCLMULQDQ $0x11, X0, X1, X10 \
	REDUCE(X8, X9, X10, X13, X11) \
	VMOVDQA X10, X12

// END adds the block of lengths, LEFT bytes and R10 of associated data, and the hash to the tag.
#define END \
	SHLQ $3, LEFT \
	SHLQ $3, R10 \
	VMOVQ LEFT, X4 \
	VPINSRQ $1, R10, X4, X4 \
	VPXOR X12, X4, X4 \
	VMOVDQU H1(POWERS), X5 \
	MULTIPLY(Z4, Z5, Z6, Z7) \
	GATHER \
	VPSHUFB reverse<>(SB), X12, X12 \
	VPXOR (R11), X12, X12 \
	VMOVDQU X12, (R11) \
	VZEROUPPER

// COUNTERS makes sixteen blocks of key stream but for the last round.
#define COUNTERS(done) \
	NEXT(Z0) \
	NEXT(Z1) \
	NEXT(Z2) \
	NEXT(Z3) \
	ROUNDS4(done)

// ADVANCE goes on by sixteen blocks.
#define ADVANCE \
	ADDQ $256, SRC \
	ADDQ $256, DST \
	SUBQ $256, LEFT

// HASH16 adds the ciphertext in Z4 to Z7 to the hash.
#define HASH16 \
	VPSHUFB REVERSE, Z4, Z4 \
	VPSHUFB REVERSE, Z5, Z5 \
	VPSHUFB REVERSE, Z6, Z6 \
	VPSHUFB REVERSE, Z7, Z7 \
	VPXORD HASH, Z4, Z4 \
	CLEAR_SUMS \
	VMOVDQU64 (H16+0)(POWERS), Z0 \
	VMOVDQU64 (H16+64)(POWERS), Z1 \
	VMOVDQU64 (H16+128)(POWERS), Z2 \
	VMOVDQU64 (H16+192)(POWERS), Z3 \
	MULTIPLY(Z4, Z0, Z11, Z12) \
	MULTIPLY(Z5, Z1, Z11, Z12) \
	MULTIPLY(Z6, Z2, Z11, Z12) \
	MULTIPLY(Z7, Z3, Z11, Z12) \
	GATHER

// TAIL begins what is left: its blocks, and the one of lengths, take the lowest powers, from R12 on.
#define TAIL \
	CLEAR_SUMS \
	LEAQ 15(LEFT), R8 \
	ANDQ $~15, R8 \
	LEAQ H1(POWERS), R12 \
	SUBQ R8, R12

// PART makes K1 the mask of the next 64 bytes or what is left, loads them into Z4, and has the
// key stream in Z0.
#define PART(whole, done) \
	MOVQ $-1, R8 \
	CMPQ LEFT, $64 \
	JGE whole \
	BZHIQ LEFT, R8, R8 \
whole: \
	KMOVQ R8, K1 \
	VMOVDQU8.Z (SRC), K1, Z4 \
	NEXT(Z0) \
	ROUNDS1(Z0, done) \
	VAESENCLAST KLAST, Z0, Z0

// HASH_PART adds the ciphertext in Z4 to the sums and goes on by 64 bytes.
#define HASH_PART \
	VPSHUFB REVERSE, Z4, Z4 \
	VPXORD HASH, Z4, Z4 \
	VPXOR X12, X12, X12 \
	VMOVDQU64 (R12), Z5 \
	MULTIPLY(Z4, Z5, Z6, Z7) \
	ADDQ $64, SRC \
	ADDQ $64, DST \
	ADDQ $64, R12 \
	SUBQ $64, LEFT

// func seal(c *wideGCM, dst, src *byte, n int, j0, ad *[16]byte, adLen int, tag *[16]byte)
TEXT ·seal(SB), NOSPLIT, $0-64
	MOVQ c+0(FP), KEYS
	MOVQ dst+8(FP), DST
	MOVQ src+16(FP), SRC
	MOVQ n+24(FP), LEFT
	MOVQ j0+32(FP), R9
	MOVQ ad+40(FP), R10
	MOVQ tag+56(FP), R11
	BEGIN(begun)
	CMPQ LEFT, $256
	JLT tail
sixteen:
	COUNTERS(last)
	VPXORD 0(SRC), KLAST, Z4 // the last round adds its key, and the plaintext with it
	VPXORD 64(SRC), KLAST, Z5
	VPXORD 128(SRC), KLAST, Z6
	VPXORD 192(SRC), KLAST, Z7
	VAESENCLAST Z4, Z0, Z4
	VAESENCLAST Z5, Z1, Z5
	VAESENCLAST Z6, Z2, Z6
	VAESENCLAST Z7, Z3, Z7
	VMOVDQU64 Z4, 0(DST)
	VMOVDQU64 Z5, 64(DST)
	VMOVDQU64 Z6, 128(DST)
	VMOVDQU64 Z7, 192(DST)
	ADVANCE
	HASH16
	CMPQ LEFT, $256
	JGE sixteen
tail:
	TAIL
	TESTQ LEFT, LEFT
	JZ end
part:
	PART(whole, partlast)
	VPXORD Z4, Z0, Z0
	VMOVDQU8 Z0, K1, (DST)
	VMOVDQU8.Z Z0, K1, Z4
	HASH_PART
	JGT part
end:
	MOVQ n+24(FP), LEFT
	MOVQ adLen+48(FP), R10
	END
	RET

// func open(c *wideGCM, dst, src *byte, n int, j0, ad *[16]byte, adLen int, tag *[16]byte)
TEXT ·open(SB), NOSPLIT, $0-64
	MOVQ c+0(FP), KEYS
	MOVQ dst+8(FP), DST
	MOVQ src+16(FP), SRC
	MOVQ n+24(FP), LEFT
	MOVQ j0+32(FP), R9
	MOVQ ad+40(FP), R10
	MOVQ tag+56(FP), R11
	BEGIN(begun)
	CMPQ LEFT, $256
	JLT tail
sixteen:
	COUNTERS(last)
	VMOVDQU64 0(SRC), Z4
	VMOVDQU64 64(SRC), Z5
	VMOVDQU64 128(SRC), Z6
	VMOVDQU64 192(SRC), Z7
	VPXORD Z4, KLAST, Z8
	VPXORD Z5, KLAST, Z9
	VPXORD Z6, KLAST, Z10
	VPXORD Z7, KLAST, Z11
	VAESENCLAST Z8, Z0, Z8
	VAESENCLAST Z9, Z1, Z9
	VAESENCLAST Z10, Z2, Z10
	VAESENCLAST Z11, Z3, Z11
	VMOVDQU64 Z8, 0(DST)
	VMOVDQU64 Z9, 64(DST)
	VMOVDQU64 Z10, 128(DST)
	VMOVDQU64 Z11, 192(DST)
	ADVANCE
	HASH16
	CMPQ LEFT, $256
	JGE sixteen
tail:
	TAIL
	TESTQ LEFT, LEFT
	JZ end
part:
	PART(whole, partlast)
	VPXORD Z4, Z0, Z0
	VMOVDQU8 Z0, K1, (DST)
	HASH_PART
	JGT part
end:
	MOVQ n+24(FP), LEFT
	MOVQ adLen+48(FP), R10
	END
	RET
