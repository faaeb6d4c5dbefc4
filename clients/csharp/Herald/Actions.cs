#nullable enable
namespace Herald
{
    /// <summary>A request to do something, which is carried out once by its request id.</summary>
    public interface IAction
    {
        /// <summary>A UUID; made by the client when it is empty.</summary>
        string RequestId { get; set; }
    }
}

namespace Game.V1
{
    public partial class StartSessionRequest : Herald.IAction { }

    public partial class PurchaseItemRequest : Herald.IAction { }

    public partial class JoinGuildRequest : Herald.IAction { }

    public partial class LeaveGuildRequest : Herald.IAction { }

    public partial class GrantItemRequest : Herald.IAction { }

    public partial class ConsumeItemRequest : Herald.IAction { }

    public partial class RefundPurchaseRequest : Herald.IAction { }
}
