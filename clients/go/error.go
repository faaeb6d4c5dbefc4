package herald

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The domain of the server's own errors; those of another one are of a proxy.
const domain = "herald"

// Error is what a call or the feed failed with. All texts may hold anything.
type Error struct {
	// Code is the status code.
	Code codes.Code
	// Reason is the server's own, such as VALIDATION_FAILED; empty where the error is of the
	// library or of a proxy.
	Reason string
	// Message is for people; it may change.
	Message string
	// Violations are the fields that were refused.
	Violations []Violation
	// Metadata is more of the server about the reason, such as earliest_cursor.
	Metadata map[string]string
	// RetryDelay is how long to wait at least before the same is tried again; 0 if not told.
	RetryDelay time.Duration
	// RequestID is that of the action, also where the caller gave none. With the same id the
	// same action is carried out once, however often it is tried.
	RequestID string
	// MayHaveHappened says that the action may have been carried out all the same.
	MayHaveHappened bool

	// Whether the server told a RetryInfo; it may be one of 0.
	retryInfo bool
	// How the caller has ended it, if it would have been tried again.
	cause error
}

// Violation is one field that was refused.
type Violation struct {
	// Field is its path in the request, such as item_id.
	Field string
	// Description is what is wrong with it, and what would be right.
	Description string
}

// Error is the text, with the violations.
func (e *Error) Error() string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s (%s)", e.Message, e.name())
	for _, violation := range e.Violations {
		fmt.Fprintf(&text, "; %s: %s", violation.Field, violation.Description)
	}
	if e.MayHaveHappened {
		fmt.Fprintf(&text, "; the action may have been carried out, try again with request id %s", e.RequestID)
	}
	return text.String()
}

// Unwrap is the error of the context, where its end is why nothing was tried again; else nil.
func (e *Error) Unwrap() error { return e.cause }

// GRPCStatus is what the google.golang.org/grpc/status package asks for.
func (e *Error) GRPCStatus() *status.Status { return status.New(e.Code, e.Message) }

func (e *Error) name() string {
	if e.Reason != "" {
		return e.Reason
	}
	return e.Code.String()
}

// errorOf reads the details of a status.
func errorOf(err error) *Error {
	said := status.Convert(err)
	failed := &Error{Code: said.Code(), Message: said.Message()}
	for _, detail := range said.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.Domain == domain {
				failed.Reason, failed.Metadata = detail.Reason, detail.Metadata
			}
		case *errdetails.BadRequest:
			for _, violation := range detail.FieldViolations {
				failed.Violations = append(failed.Violations, Violation{violation.Field, violation.Description})
			}
		case *errdetails.RetryInfo:
			failed.RetryDelay, failed.retryInfo = detail.RetryDelay.AsDuration(), true
		}
	}
	return failed
}

// isRetryable says whether the same may succeed later, if the caller has not ended it.
func (e *Error) isRetryable() bool {
	switch e.Reason {
	case "LOG_UNAVAILABLE", "OVERLOADED", "REQUEST_IN_PROGRESS", "STATE_BEHIND",
		"STREAM_DEADLINE", "SUBSCRIBER_LIMIT", "WRITE_OUTCOME_UNKNOWN":
		return true
	case "":
		switch e.Code {
		case codes.Unavailable, codes.DeadlineExceeded, codes.Internal, codes.Unknown, codes.Canceled:
			return true
		}
		return false
	}
	return e.retryInfo || e.Code == codes.Unavailable
}

// leavesOpenWhatHappened says whether an action that reached the server, or a proxy, and failed
// so may have been carried out.
func (e *Error) leavesOpenWhatHappened() bool {
	if e.Reason == "" {
		return e.Code != codes.Unimplemented
	}
	return e.Reason == "WRITE_OUTCOME_UNKNOWN" || e.Reason == "REQUEST_IN_PROGRESS"
}
