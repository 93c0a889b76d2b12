package store

// MaxUserCalls is how many records of a source wait at the most.
const MaxUserCalls = maxUserCalls

// SkipUserCalls lets the next record of a source have a number after n.
func (w *Writer) SkipUserCalls(source string, n uint64) error {
	return putNumber(w.tx, metaUserCalls+source, n)
}
