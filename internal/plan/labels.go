package plan

import "encoding/json"

// Labels say which runners a job may get: those that have all of them. In JSON they are
// what runs-on takes, a string for one and an array for several.
type Labels []string

// MarshalJSON implements [json.Marshaler].
func (l Labels) MarshalJSON() ([]byte, error) {
	if len(l) == 1 {
		return json.Marshal(l[0])
	}
	return json.Marshal([]string(l))
}

// UnmarshalJSON implements [json.Unmarshaler].
func (l *Labels) UnmarshalJSON(text []byte) error {
	if len(text) > 0 && text[0] == '"' {
		*l = make(Labels, 1)
		return json.Unmarshal(text, &(*l)[0])
	}
	return json.Unmarshal(text, (*[]string)(l))
}
